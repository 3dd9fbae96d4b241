/*
 * Asks the planner. The question is a list of facts (u32 tag, u32 length, bytes) taken here, where the caller's mounts and
 * descriptors are; the answer is 'P' and a plan, or 'E' and what is wrong. The planner is a running daemon's socket or a
 * one-shot Node with the same code.
 */
#include "system.h"
#include "oci.h"

#define DOCUMENT_MAX (4u << 20)
#define ANSWER_MAX (PLAN_BYTES_MAX + 65536u)

enum tag { TAG_COMMAND = 1, TAG_ARGUMENT, TAG_CWD, TAG_ENVIRONMENT, TAG_MOUNTS, TAG_CGROUP, TAG_DOCUMENT, TAG_BASE, TAG_SYSTEMD, TAG_USER };

static void put(int to, enum tag tag, const char *bytes, size_t length) {
  uint32_t head[2] = {tag, (uint32_t)length};
  if (write(to, head, sizeof head) != (ssize_t)sizeof head) return;
  if (length > 0 && write(to, bytes, length) != (ssize_t)length) return;
}

static int put_file(int to, enum tag tag, const char *path) {
  size_t length;
  char *text = read_whole(AT_FDCWD, path, DOCUMENT_MAX, &length);
  if (text != NULL) put(to, tag, text, length);
  free(text);
  return text == NULL ? -1 : 0;
}

/* The document a command is about: the bundle's config.json, a process, or resources; none is fine for some. */
static int put_document(int to, const struct front *front) {
  const char *path = NULL, *bundle;
  char file[PATH_MAX];
  if (strcmp(front->command, "exec") == 0) {
    path = option_value(front, "process", 'p');
  } else if (strcmp(front->command, "update") == 0) {
    path = option_value(front, "resources", 'r');
  } else {
    bundle = option_value(front, "bundle", 'b');
    snprintf(file, sizeof file, "%s/config.json", bundle ? bundle : ".");
    path = file;
  }
  return path == NULL || put_file(to, TAG_DOCUMENT, path) == 0 ? 0 : complain("read %s: %s", path, strerror(errno));
}

static int make_question(const struct front *front, const struct container *c) {
  static const char *const variables[] = {"LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET"};
  char here[PATH_MAX], user[32];
  int to = memfd_create("question", MFD_CLOEXEC);
  if (to < 0) return -1;
  put(to, TAG_COMMAND, front->command, strlen(front->command));
  for (char **argument = front->arguments; *argument != NULL; argument++) put(to, TAG_ARGUMENT, *argument, strlen(*argument));
  if (getcwd(here, sizeof here) != NULL) put(to, TAG_CWD, here, strlen(here));
  for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
    const char *value = getenv(variables[i]);
    char text[4200];
    if (value != NULL && snprintf(text, sizeof text, "%s=%s", variables[i], value) < (int)sizeof text)
      put(to, TAG_ENVIRONMENT, text, strlen(text));
  }
  put_file(to, TAG_MOUNTS, "/proc/self/mountinfo");
  put_file(to, TAG_CGROUP, "/proc/self/cgroup");
  snprintf(user, sizeof user, "%u", (unsigned)geteuid());
  put(to, TAG_USER, user, strlen(user));
  if (front->systemd) put(to, TAG_SYSTEMD, "1", 1);
  if (c != NULL && c->planned) {
    const char *base = plan_find(&c->plan, OP_PROCESS_JSON)->f[0].text;
    put(to, TAG_BASE, base, strlen(base));
  }
  if (put_document(to, front) == 0 && lseek(to, 0, SEEK_SET) == 0) return to;
  close(to);
  return -2;
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

static unsigned char *ask_node(const struct front *front, int question, size_t *length) {
  char node[PATH_MAX], script[PATH_MAX];
  int answer[2], status;
  ssize_t got;
  if (find_program(front, node, script, sizeof node) != 0) return NULL;
  unsigned char *bytes = malloc(ANSWER_MAX);
  if (bytes == NULL || pipe2(answer, O_CLOEXEC) != 0) return free(bytes), NULL;
  pid_t pid = vfork();
  if (pid == 0) {
    char *arguments[] = {node, (char *)(uintptr_t) "--disable-warning=ExperimentalWarning", script,
                         (char *)(uintptr_t) "plan", NULL};
    char *environment[] = {NULL};
    if (dup2(question, 0) < 0 || dup2(answer[1], 1) < 0 || syscall(SYS_close_range, 3, ~0u, 4) != 0) _exit(127);
    execve(node, arguments, environment);
    _exit(127);
  }
  close(answer[1]);
  *length = 0;
  while (pid > 0 && *length < ANSWER_MAX && (got = read(answer[0], bytes + *length, ANSWER_MAX - *length)) != 0) {
    if (got > 0) *length += (size_t)got;
    else if (errno != EINTR) break;
  }
  close(answer[0]);
  while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  return bytes;
}

unsigned char *ask_plan(const struct front *front, const struct container *container, size_t *length) {
  int question = make_question(front, container);
  if (question == -1) complain("make a question: %s", strerror(errno));
  if (question < 0) return NULL;
  unsigned char *bytes = ask_node(front, question, length);
  close(question);
  if (bytes != NULL && *length > 1 && bytes[0] == 'P') {
    --*length;
    memmove(bytes, bytes + 1, *length);
    return bytes;
  }
  if (bytes != NULL && *length > 1 && bytes[0] == 'E') complain("%.*s", (int)(*length - 1), (const char *)bytes + 1);
  else if (bytes != NULL) complain("the planner gave no answer");
  free(bytes);
  return NULL;
}
