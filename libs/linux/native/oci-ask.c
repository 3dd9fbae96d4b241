/*
 * Asks the planner. The question is a list of facts (u32 tag, u32 length, bytes) taken here, where the caller's mounts and
 * descriptors are, the last of them TAG_END; the answer is 'P' and a plan, or 'E' and what is wrong. Lines that begin with 'W', warnings,
 * may come before. The planner is a service of the caller's own (`kiln-oci planner`), else a one-shot Node.
 */
#include "system.h"
#include "oci.h"

#define DOCUMENT_MAX (4u << 20)
#define ANSWER_MAX (PLAN_BYTES_MAX + 65536u)
#define SERVICE_MS 2000

/* Goes before a question to the service, and back before its answer with nothing but the length changed. */
struct heading {
  char magic[8];
  uint64_t script[4]; /* device, inode, size and time of the kiln-oci.mjs that we would run: the service is that one */
  unsigned char nonce[16];
  uint64_t length;
};

enum tag { TAG_COMMAND = 1, TAG_ARGUMENT, TAG_CWD, TAG_LISTEN_FDS, TAG_MOUNTS, TAG_CGROUP, TAG_DOCUMENT, TAG_BASE, TAG_SYSTEMD, TAG_ROOTLESS, TAG_END };

/* The stream remembers what it could not write; `make_question` looks at the end. */
static void put(FILE *to, enum tag tag, const char *bytes, size_t length) {
  uint32_t head[2] = {tag, (uint32_t)length};
  fwrite(head, sizeof head, 1, to);
  fwrite(bytes, 1, length, to);
}

static void put_text(FILE *to, enum tag tag, const char *text) { put(to, tag, text, strlen(text)); }

static int put_file(FILE *to, enum tag tag, const char *path) {
  size_t length;
  char *text = read_whole(AT_FDCWD, path, DOCUMENT_MAX, &length);
  if (text == NULL) return complain("read %s: %s", path, strerror(errno));
  put(to, tag, text, length);
  free(text);
  return 0;
}

/* The document a command is about: the bundle's config.json, a process, or resources; none is fine for some. */
static int put_document(FILE *to, const struct front *front) {
  const char *path = NULL;
  char file[PATH_MAX];
  if (strcmp(front->command, "exec") == 0) {
    path = option_value(front, "process", 'p');
  } else if (strcmp(front->command, "update") == 0) {
    path = option_value(front, "resources", 'r');
  } else {
    /* As crun's --config: from where the caller is, but the usual name is the bundle's. */
    path = option_value(front, "config", 'f');
    snprintf(file, sizeof file, "%s/config.json", option_value(front, "bundle", 'b') ?: ".");
    if (path == NULL || strcmp(path, "config.json") == 0) path = file;
  }
  return path == NULL ? 0 : put_file(to, TAG_DOCUMENT, path);
}

/* The question in a file, or -1 after complaining: never a part of it. */
static int make_question(const struct front *front, const struct container *c) {
  const char *listen = getenv("LISTEN_FDS"), *whose = getenv("LISTEN_PID");
  char here[PATH_MAX], group[40] = "/proc/self/cgroup";
  FILE *to = fdopen(memfd_create("question", MFD_CLOEXEC), "w+e");
  if (to == NULL || getcwd(here, sizeof here) == NULL) return complain("ask the planner: %s", strerror(errno)), -1;
  put_text(to, TAG_COMMAND, front->command);
  for (char **argument = front->arguments; *argument != NULL; argument++) put_text(to, TAG_ARGUMENT, *argument);
  put_text(to, TAG_CWD, here);
  /* Descriptors of a socket unit are ours only if they were meant for us. */
  if (listen != NULL && (whose == NULL || atoi(whose) == getpid())) put_text(to, TAG_LISTEN_FDS, listen);
  if (front->systemd) put(to, TAG_SYSTEMD, "", 0);
  if (front->rootless) put(to, TAG_ROOTLESS, "", 0);
  if (c != NULL && c->planned) put_text(to, TAG_BASE, plan_find(&c->plan, OP_PROCESS_JSON)->f[0].text);
  /* A further process goes where the first one is by now. */
  if (strcmp(front->command, "exec") == 0 && c != NULL) snprintf(group, sizeof group, "/proc/%d/cgroup", c->pid);
  if (put_file(to, TAG_MOUNTS, "/proc/self/mountinfo") != 0 || put_file(to, TAG_CGROUP, group) != 0 ||
      put_document(to, front) != 0)
    return fclose(to), -1;
  put(to, TAG_END, "", 0);
  int question = fflush(to) == 0 && !ferror(to) ? fcntl(fileno(to), F_DUPFD_CLOEXEC, 3) : -1;
  if (question < 0) complain("write the question to the planner: %s", strerror(errno));
  fclose(to);
  lseek(question, 0, SEEK_SET);
  return question;
}

static int find_program(const struct front *front, char *node, char *script, size_t size) {
  static const char *const scripts[] = {"%s/../lib/kiln-oci.mjs", "%s/kiln-oci.mjs", "%s/../lib/kiln/kiln-oci.mjs"};
  static const char *const nodes[] = {"%s/../lib/node", "%s/node", "/usr/bin/node", "/usr/local/bin/node"};
  size_t i = 0;
  do snprintf(script, size, scripts[i++], front->home);
  while (access(script, R_OK) != 0 && i < 3);
  if (access(script, R_OK) != 0) return complain("the planner kiln-oci.mjs is missing beside %s", front->home);
  for (i = 0; i < 4; i++) {
    snprintf(node, size, nodes[i], front->home);
    if (access(node, X_OK) == 0) return 0;
  }
  return complain("there is no Node to run %s", script);
}

int run_planner(const struct front *front) {
  char node[PATH_MAX], script[PATH_MAX], *arguments[256];
  size_t count = 0;
  if (find_program(front, node, script, sizeof node) != 0) return 1;
  arguments[count++] = node;
  arguments[count++] = (char *)(uintptr_t) "--disable-warning=ExperimentalWarning";
  arguments[count++] = script;
  arguments[count++] = (char *)(uintptr_t)front->command;
  arguments[count++] = (char *)(uintptr_t)front->root;
  for (char **argument = front->arguments; *argument != NULL && count < 255; argument++) arguments[count++] = *argument;
  arguments[count] = NULL;
  execv(node, arguments);
  return complain("execute %s: %s", node, strerror(errno));
}

/* Reads (POLLIN) up to `most` bytes or the end, or writes (POLLOUT) as many. 0, or -1 when time is up or the other side gone. */
static int transfer(int fd, short way, void *bytes, size_t most, size_t *done, long long end) {
  struct pollfd polled = {fd, way, 0};
  for (*done = 0; *done < most;) {
    long long left = end - now_ms(CLOCK_MONOTONIC);
    int ready = left > 0 ? poll(&polled, 1, (int)left) : 0;
    if (ready == 0) return -1;
    char *at = (char *)bytes + *done;
    ssize_t moved = ready < 0 ? -1 : way == POLLIN ? read(fd, at, most - *done) : send(fd, at, most - *done, MSG_NOSIGNAL);
    if (moved == 0) return 0;
    if (moved > 0) *done += (size_t)moved;
    else if (errno != EINTR && errno != EAGAIN) return -1;
  }
  return 0;
}

/* The service's socket: KILN_OCI_PLANNER_SOCKET (empty: do not ask), else below the folder for what runs. */
static int connect_service(const struct front *front) {
  char path[PATH_MAX];
  struct ucred peer;
  socklen_t size = sizeof peer;
  const char *named = getenv("KILN_OCI_PLANNER_SOCKET"), *folder = front->rootless ? getenv("XDG_RUNTIME_DIR") : "/run";
  snprintf(path, sizeof path, "%s/kiln/oci-planner/socket", folder ?: "");
  if ((named ?: path)[0] != '/') return -1;
  int fd = connect_socket(named ?: path, SOCK_STREAM | SOCK_NONBLOCK);
  if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return -1;
  /* Who listens there is us, and not somebody whom this user namespace has no number for. */
  return peer.uid == geteuid() && peer.uid != 65534 ? fd : (close(fd), -1);
}

/* The service's answer, in `bytes` after its heading; NULL when there is none: then Node is asked, as planning changes nothing. */
static unsigned char *ask_service(const struct front *front, const char *script, int question, unsigned char *bytes, size_t *length) {
  struct heading heading = {.magic = "KILNASK"};
  struct stat file, asked;
  long long end = now_ms(CLOCK_MONOTONIC) + SERVICE_MS;
  int fd = connect_service(front), good = 0;
  if (fd < 0) return NULL;
  if (stat(script, &file) == 0 && fstat(question, &asked) == 0 && syscall(SYS_getrandom, heading.nonce, 16, 0) == 16) {
    uint64_t nanoseconds = (uint64_t)file.st_mtim.tv_sec * 1000000000 + (uint64_t)file.st_mtim.tv_nsec;
    memcpy(heading.script, (uint64_t[]){file.st_dev, file.st_ino, (uint64_t)file.st_size, nanoseconds}, sizeof heading.script);
    heading.length = (uint64_t)asked.st_size;
    void *text = mmap(NULL, heading.length, PROT_READ, MAP_PRIVATE, question, 0);
    good = text != MAP_FAILED && transfer(fd, POLLOUT, &heading, sizeof heading, length, end) == 0 &&
           transfer(fd, POLLOUT, text, heading.length, length, end) == 0 &&
           transfer(fd, POLLIN, bytes, ANSWER_MAX, length, end) == 0 && *length > sizeof heading + 1;
    heading.length = good ? *length - sizeof heading : 0;
    good = good && memcmp(bytes, &heading, sizeof heading) == 0;
  }
  close(fd);
  remark("debug", "the planner's service %s", good ? "answered" : "gave no answer to this question");
  return good ? *length -= sizeof heading, bytes + sizeof heading : NULL;
}

/* A planner that hangs is ended: KILN_OCI_PLANNER_SECONDS, 60 without it. NULL after complaining. */
static unsigned char *ask_node(char *node, char *script, int question, unsigned char *bytes, size_t *length) {
  int answer[2], seconds = atoi(getenv("KILN_OCI_PLANNER_SECONDS") ?: "60");
  if (seconds < 1 || seconds > 3600) return complain("KILN_OCI_PLANNER_SECONDS: not 1 to 3600"), NULL;
  if (pipe2(answer, O_CLOEXEC) != 0) return complain("ask the planner: %s", strerror(errno)), NULL;
  pid_t pid = vfork();
  if (pid == 0) {
    char *arguments[] = {node, (char *)(uintptr_t) "--disable-warning=ExperimentalWarning", script,
                         (char *)(uintptr_t) "plan", NULL};
    char *environment[] = {NULL};
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (dup2(question, 0) < 0 || dup2(answer[1], 1) < 0 || syscall(SYS_close_range, 3, ~0u, 4) != 0) _exit(127);
    execve(node, arguments, environment);
    _exit(127);
  }
  close(answer[1]);
  int timely = transfer(answer[0], POLLIN, bytes, ANSWER_MAX, length, now_ms(CLOCK_MONOTONIC) + seconds * 1000LL) == 0;
  close(answer[0]);
  if (pid > 0) kill(pid, SIGKILL);
  while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR) continue;
  if (timely && *length > 1) return bytes;
  if (timely) complain("the planner gave no answer");
  else complain("the planner did not answer in %d s", seconds);
  return NULL;
}

unsigned char *ask_plan(const struct front *front, const struct container *c, enum plan_kind kind, struct plan *plan, size_t *length) {
  char node[PATH_MAX], script[PATH_MAX];
  unsigned char *space = malloc(ANSWER_MAX), *bytes, *line;
  int question = space == NULL || find_program(front, node, script, sizeof node) != 0 ? -1 : make_question(front, c);
  if (question < 0) return NULL;
  bytes = ask_service(front, script, question, space, length) ?: ask_node(node, script, question, space, length);
  close(question);
  if (bytes == NULL) return NULL;
  for (; *bytes == 'W' && (line = memchr(bytes, '\n', *length)) != NULL; *length -= (size_t)(line + 1 - bytes), bytes = line + 1)
    remark("warning", "%.*s", (int)(line - bytes - 1), (const char *)bytes + 1);
  const char *problem = *bytes == 'P' ? plan_parse(plan, bytes + 1, --*length) : "it is no plan";
  remark("debug", "the planner answered %s with %zu bytes", front->command, *length);
  if (problem == NULL && plan->kind == kind) return bytes + 1;
  if (*bytes == 'E') complain("%.*s", (int)(*length - 1), (const char *)bytes + 1);
  else complain("bad plan: %s", problem ? problem : "its kind");
  return NULL;
}
