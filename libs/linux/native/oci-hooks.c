/* Hooks of the OCI specification: a program with its own arguments and environment, the state on its stdin. */
#include "system.h"
#include "oci.h"

#define HOOK_WORDS_MAX 1024

static const char *const hook_names[] = {"prestart",       "createRuntime", "createContainer",
                                         "startContainer", "poststart",     "poststop"};

_Noreturn static void execute_hook(const char *path, char **arguments, char **environment, int state, const char *folder) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  signal(SIGPIPE, SIG_DFL);
  if (chdir(folder) != 0 && chdir("/") != 0) _exit(127);
  if (dup2(state, 0) < 0 || syscall(SYS_close_range, 3, ~0u, 4 /* CLOSE_RANGE_CLOEXEC */) != 0) _exit(127);
  /* One that has no environment of its own gets ours, as with runc. */
  execve(path, arguments, *environment == NULL ? environ : environment);
  dprintf(2, "execute hook %s: %s\n", path, strerror(errno));
  _exit(127);
}

/* Waits for the hook, and kills it with its group at the timeout. */
static int wait_for_hook(pid_t pid, uint64_t seconds, int *status) {
  int process = (int)syscall(SYS_pidfd_open, pid, 0);
  struct pollfd polled = {process, POLLIN, 0};
  int timeout = seconds == 0 || seconds > 2000000 ? -1 : (int)seconds * 1000;
  int ready = process < 0 ? 1 : poll(&polled, 1, timeout);
  if (process >= 0) close(process);
  if (ready == 0) kill(-pid, SIGKILL);
  while (waitpid(pid, status, 0) < 0 && errno == EINTR) continue;
  return ready == 0 ? -1 : 0;
}

static int run_hook(const struct plan *plan, size_t at, const char *name, const char *state, const char *folder) {
  static char *arguments[HOOK_WORDS_MAX + 2], *environment[HOOK_WORDS_MAX + 1];
  const struct record *hook = &plan->records[at];
  size_t words = 0, variables = 0;
  int status = 0;
  for (size_t i = at + 1; i < plan->count && plan->records[i].op != OP_HOOK; i++) {
    char *text = (char *)(uintptr_t)plan->records[i].f[0].text;
    if (plan->records[i].op == OP_HOOK_ARGUMENT) arguments[words++] = text;
    if (plan->records[i].op == OP_HOOK_ENVIRONMENT) environment[variables++] = text;
  }
  if (words == 0) arguments[words++] = (char *)(uintptr_t)hook->f[1].text;
  arguments[words] = environment[variables] = NULL;
  /* A file rather than a pipe: a hook that does not read its stdin is no failure. */
  int input = memfd_create("state", MFD_CLOEXEC);
  if (input < 0 || write(input, state, strlen(state)) < 0 || lseek(input, 0, SEEK_SET) != 0)
    return complain("state for hook %s: %s", hook->f[1].text, strerror(errno));
  pid_t pid = fork();
  if (pid == 0) {
    setpgid(0, 0);
    execute_hook(hook->f[1].text, arguments, environment, input, folder);
  }
  close(input);
  if (pid < 0) return complain("fork: %s", strerror(errno));
  if (wait_for_hook(pid, hook->f[2].number, &status) != 0)
    return complain("%s hook %s did not end in %llu s", name, hook->f[1].text, (unsigned long long)hook->f[2].number);
  if (status == 0) return 0;
  return complain("%s hook %s failed with %d", name, hook->f[1].text, exit_code(status));
}

int run_hooks(const struct plan *plan, enum hook_when when, const char *state, const char *folder) {
  int failed = 0;
  for (size_t i = 0; i < plan->count; i++) {
    if (plan->records[i].op != OP_HOOK || plan->records[i].f[0].number != when) continue;
    if (run_hook(plan, i, hook_names[when], state, folder) == 0) continue;
    failed = -1;
    /* What comes after the program has started is told and goes on; before, the first failure ends it. */
    if (when < HOOK_POSTSTART) return -1;
  }
  return failed;
}
