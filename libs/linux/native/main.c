/* kiln-init: executes a plan; its usage is at the end. Under the name kiln-oci it is the OCI runtime command line: oci-front.c. */
#include "system.h"
#include "oci.h"

static int print_failure(const char *step, const char *path, int error) {
  printf("{\"error\":{\"step\":\"%s\",\"path\":\"", step);
  write_json(stdout, path);
  printf("\",\"errno\":%d,\"message\":\"%s\"}}\n", error, strerror(error));
  return 1;
}

static int read_plan(const char *path, struct plan *plan) {
  size_t length;
  unsigned char *bytes = (unsigned char *)read_whole(AT_FDCWD, path, PLAN_BYTES_MAX + 1, &length);
  const char *problem = bytes == NULL ? "open plan" : plan_parse(plan, bytes, length);
  return problem == NULL ? 0 : print_failure(problem, path, bytes == NULL ? errno : EINVAL);
}

/* A container could reach this binary through /proc/self/exe; where it could be written, run from a sealed copy. -1: none. */
static int run_from_copy(char **argv, char **environment) {
  struct statvfs where;
  struct stat status;
  off_t at = 0;
  int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  if (self < 0 || fstatvfs(self, &where) != 0 || fstat(self, &status) != 0) return -1;
  int seals = fcntl(self, F_GET_SEALS);
  if ((where.f_flag & ST_RDONLY) || (seals > 0 && (seals & F_SEAL_WRITE))) return close(self);
  int copy = memfd_create("kiln-init", MFD_CLOEXEC | MFD_ALLOW_SEALING | 0x10 /* MFD_EXEC */);
  if (copy < 0 && errno == EINVAL) copy = memfd_create("kiln-init", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  while (copy >= 0 && at < status.st_size && sendfile(copy, self, &at, (size_t)(status.st_size - at)) > 0) continue;
  if (copy < 0 || at != status.st_size) return -1;
  if (fcntl(copy, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0) return -1;
  return fexecve(copy, argv, environment);
}

static int start(const char *path) {
  struct plan plan;
  union {
    struct failure failure;
    char text[512];
  } told;
  int report[2], status;
  if (read_plan(path, &plan) != 0) return 1;
  if (plan.kind == PLAN_EXEC) return print_failure("start an exec plan", path, EINVAL);
  if (pipe2(report, O_CLOEXEC) != 0) return print_failure("pipe", path, errno);
  pid_t pid = fork();
  if (pid < 0) return print_failure("fork", path, errno);
  if (pid == 0) {
    close(report[0]);
    _exit(plan.kind == PLAN_SANDBOX ? start_sandbox(&plan, report[1]) : start_container(&plan, report[1]));
  }
  close(report[1]);
  ssize_t length = read(report[0], &told, sizeof told - 1);
  if (length > 0 && length < (ssize_t)sizeof told.failure) {
    told.text[length] = 0;
    fputs(told.text, stdout);
    return 0;
  }
  waitpid(pid, &status, 0);
  if (length == (ssize_t)sizeof told.failure)
    return print_failure(told.failure.step, told.failure.path, told.failure.error);
  return print_failure("supervise", path, ECHILD);
}

static int kill_process(char **argv) {
  int process = open_process((pid_t)atoi(argv[2]), strtoull(argv[3], NULL, 10));
  if (process < 0) return print_failure("find process", argv[2], errno);
  if (syscall(SYS_pidfd_send_signal, process, atoi(argv[4]), NULL, 0) != 0)
    return print_failure("signal process", argv[2], errno);
  return 0;
}

/*
 * The command line is ours under the name kiln-oci. What makes or enters a container runs from a copy, which has no path: it
 * is told where Node and the planner are.
 */
static int run_oci(int argc, char **argv) {
  char home[600];
  int enters = 0;
  for (int i = 1; i < argc && !enters; i++)
    enters = strcmp(argv[i], "create") == 0 || strcmp(argv[i], "run") == 0 || strcmp(argv[i], "exec") == 0;
  ssize_t length = readlink("/proc/self/exe", home, sizeof home - 1);
  if (length <= 0) return complain("find this program: %s", strerror(errno));
  home[length] = 0;
  if (strncmp(home, "/memfd:", 7) != 0) {
    *strrchr(home, '/') = 0;
    setenv("KILN_OCI_HOME", home, 1);
    if (enters && run_from_copy(argv, environ) != 0) return complain("run from a sealed copy: %s", strerror(errno));
  }
  return oci_main(argc, argv);
}

int main(int argc, char **argv) {
  struct plan plan;
  const char *name = argc > 0 ? strrchr(argv[0], '/') : NULL;
  if (argc > 0 && strcmp(name ? name + 1 : argv[0], "kiln-oci") == 0) return run_oci(argc, argv);
  if (argc == 3 && strcmp(argv[1], "check") == 0) return read_plan(argv[2], &plan);
  if (argc == 5 && strcmp(argv[1], "kill") == 0) return kill_process(argv);
  if (argc == 2 && strcmp(argv[1], "version") == 0) return printf("kiln-init plan %d\n", PLAN_VERSION) < 0;
  if (argc == 3 && strcmp(argv[1], "start") == 0) {
    if (run_from_copy(argv, (char *[]){NULL}) != 0) return print_failure("run from a sealed copy", argv[2], errno);
    return start(argv[2]);
  }
  if (argc == 3 && strcmp(argv[1], "exec") == 0) {
    if (run_from_copy(argv, (char *[]){NULL}) != 0) return print_failure("run from a sealed copy", argv[2], errno), 126;
    if (read_plan(argv[2], &plan) != 0) return 126;
    if (plan.kind != PLAN_EXEC) return print_failure("exec this kind of plan", argv[2], EINVAL), 126;
    return run_in_container(&plan);
  }
  fputs("usage: kiln-init start PLAN | exec PLAN | check PLAN | kill PID START SIGNAL | version\n", stderr);
  return 2;
}
