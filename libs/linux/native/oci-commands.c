/* Commands on a container that exists: they need its folder and the kernel, no planner. */
#include "system.h"
#include "oci.h"

static const char *const none[] = {NULL}, *const every[] = {"*", NULL};

/* The one id of a command that takes nothing else, opened; NULL after complaining. */
static const char *only_id(struct front *front, const char *const *valued, struct container *c, int lock) {
  char **rest = positional(front, valued);
  if (rest[0] == NULL) return complain("%s needs a container id", front->command), NULL;
  if (open_container(front, rest[0], c, lock) == 0) return rest[0];
  complain("container %s does not exist", rest[0]);
  return NULL;
}

static pid_t live_pid(const struct container *c, enum status status) {
  return status == STATUS_STOPPED ? 0 : c->pid;
}

int command_state(struct front *front) {
  struct container c;
  if (only_id(front, none, &c, 0) == NULL) return 1;
  enum status status = status_of(&c);
  char *text = state_json(&c, status, live_pid(&c, status));
  return text == NULL || puts(text) < 0;
}

int start_container_now(struct container *c) {
  struct failure failure;
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d/start", c->folder);
  int fd = connect_socket(path, SOCK_STREAM);
  if (fd < 0) return complain("start %s: %s", c->id, strerror(errno));
  /* From here on the program may run: a second start must not be tried, whatever becomes of this one. */
  c->running = 1;
  unlinkat(c->folder, "start", 0);
  if (write_state(c) != 0) return complain("write state of %s: %s", c->id, strerror(errno));
  ssize_t got = recv(fd, &failure, sizeof failure, MSG_WAITALL);
  close(fd);
  if (got == (ssize_t)sizeof failure) {
    complain_of(&failure);
    wait_gone(c->pid, c->started_at, 5000);
    return 1;
  }
  char *state = state_json(c, STATUS_RUNNING, c->pid);
  run_hooks(&c->plan, HOOK_POSTSTART, state, plan_find(&c->plan, OP_BUNDLE)->f[0].text);
  free(state);
  return 0;
}

int command_start(struct front *front) {
  struct container c;
  if (only_id(front, none, &c, 1) == NULL) return 1;
  enum status status = status_of(&c);
  if (status != STATUS_CREATED) return complain("cannot start a %s container", status_names[status]);
  return start_container_now(&c);
}

static int signal_number(const char *text) {
  if (isdigit((unsigned char)*text)) {
    char *end;
    long number = strtol(text, &end, 10);
    return *end == 0 && number < NSIG ? (int)number : -1;
  }
  char name[32];
  snprintf(name, sizeof name, "%s", strncasecmp(text, "SIG", 3) == 0 ? text + 3 : text);
  for (char *at = name; *at; at++) *at = (char)toupper((unsigned char)*at);
  for (int number = 1; number < NSIG; number++) {
    const char *known = sigabbrev_np(number);
    if (known != NULL && strcmp(known, name) == 0) return number;
  }
  int real = strncmp(name, "RTMIN", 5) == 0 ? SIGRTMIN + atoi(name + 5) : strncmp(name, "RTMAX", 5) == 0 ? SIGRTMAX + atoi(name + 5) : -1;
  return real >= SIGRTMIN && real <= SIGRTMAX ? real : -1;
}

int command_kill(struct front *front) {
  struct container c;
  if (only_id(front, none, &c, 0) == NULL) return 1;
  char **rest = front->rest;
  const char *name = rest[1] != NULL && rest[1][0] != '-' ? rest[1] : "TERM";
  int number = signal_number(name), all = option_given(front, "all", 'a');
  if (rest[1] != NULL && strcmp(rest[1], "--all") == 0) all = 1;
  if (number < 0) return complain("unknown signal \"%s\"", name);
  enum status status = status_of(&c);
  if (all && c.planned && status == STATUS_STOPPED) return kill_cgroup(&c.plan, number), 0;
  if (status == STATUS_STOPPED || status == STATUS_CREATING) return complain("container not running: it is %s", status_names[status]);
  int process = open_process(c.pid, c.started_at);
  if (process < 0 || syscall(SYS_pidfd_send_signal, process, number, NULL, 0) != 0)
    return complain("signal %s: %s", c.id, strerror(errno));
  if (all && c.planned) kill_cgroup(&c.plan, number);
  return 0;
}

int command_delete(struct front *front) {
  struct container c;
  char **rest = positional(front, none);
  int force = option_given(front, "force", 'f');
  if (rest[0] == NULL) return complain("delete needs a container id");
  /* `delete ID --force`, too. */
  for (char **more = rest + 1; *more != NULL; more++) force |= strcmp(*more, "--force") == 0 || strcmp(*more, "-f") == 0;
  if (open_container(front, rest[0], &c, 1) != 0) return force ? 0 : complain("container %s does not exist", rest[0]);
  enum status status = status_of(&c);
  /* No process yet and nobody holds the lock: whoever was making it died. One that was just killed is about to be gone. */
  if (!force && status != STATUS_STOPPED && c.pid != 0 && wait_gone(c.pid, c.started_at, 200) != 0)
    return complain("cannot delete a %s container", status_names[status]);
  return destroy_container(front, &c);
}

static void print_listed(const struct container *c, const char *format, int first) {
  struct stat owner = {0};
  char when[40], name[300];
  enum status status = status_of(c);
  time_t seconds = (time_t)(c->created_ms / 1000);
  struct tm utc;
  const char *bundle = c->planned ? plan_find(&c->plan, OP_BUNDLE)->f[0].text : "";
  fstat(c->folder, &owner);
  const struct passwd *user = user_of(owner.st_uid);
  snprintf(name, sizeof name, "#%u", (unsigned)owner.st_uid);
  if (user != NULL) snprintf(name, sizeof name, "%s", user->pw_name);
  gmtime_r(&seconds, &utc);
  strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc);
  if (strcmp(format, "json") != 0) {
    printf("%-28s %-10d %-10s %-40s %s.%03lldZ %s\n", c->id, (int)live_pid(c, status), status_names[status], bundle, when,
           c->created_ms % 1000, name);
    return;
  }
  char *state = state_json(c, status, live_pid(c, status));
  if (state == NULL) return;
  state[strlen(state) - 1] = 0;
  printf("%s%s,\"rootfs\":\"", first ? "" : ",", state);
  write_json(stdout, c->planned ? plan_find(&c->plan, OP_ROOT)->f[0].text : "");
  printf("\",\"created\":\"%s.%03lldZ\",\"owner\":\"%s\"}", when, c->created_ms % 1000, name);
  free(state);
}

int command_list(struct front *front) {
  const char *format = option_value(front, "format", 'f');
  int quiet = option_given(front, "quiet", 'q'), first = 1;
  if (format == NULL) format = "table";
  if (strcmp(format, "json") != 0 && strcmp(format, "table") != 0) return complain("unknown format \"%s\"", format);
  struct dirent **entries = NULL;
  int count = scandir(front->root, &entries, NULL, alphasort);
  if (!quiet && strcmp(format, "table") == 0)
    printf("%-28s %-10s %-10s %-40s %s %s\n", "ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER");
  if (!quiet && strcmp(format, "json") == 0) putchar('[');
  for (int i = 0; i < count; i++) {
    struct container c;
    if (entries[i]->d_name[0] == '.' || open_container(front, entries[i]->d_name, &c, 0) != 0) continue;
    if (quiet) puts(c.id);
    else print_listed(&c, format, first);
    first = 0;
    close(c.folder);
    free(c.bytes);
    if (c.planned) free((void *)(uintptr_t)c.plan.records);
  }
  return !quiet && strcmp(format, "json") == 0 ? puts("]") < 0 : 0;
}

static void print_pid(pid_t pid, void *count) { printf("%s%d", (*(int *)count)++ == 0 ? "[" : ",", (int)pid); }

int command_ps(struct front *front) {
  static const char *const valued[] = {"format", "f", NULL};
  struct container c;
  int count = 0;
  if (only_id(front, valued, &c, 0) == NULL) return 1;
  const char *format = option_value(front, "format", 'f');
  if (!c.planned) return complain("container %s is incomplete", c.id);
  if (format == NULL || strcmp(format, "table") == 0) return run_planner(front);
  if (strcmp(format, "json") != 0) return complain("unknown format \"%s\"", format);
  each_process(&c.plan, print_pid, &count);
  return puts(count == 0 ? "[]" : "]") < 0;
}

int command_pause(struct front *front) {
  struct container c;
  int freeze = strcmp(front->command, "pause") == 0;
  if (only_id(front, none, &c, 1) == NULL) return 1;
  enum status status = status_of(&c);
  if (freeze ? status != STATUS_RUNNING && status != STATUS_CREATED : status != STATUS_PAUSED)
    return complain("cannot %s a %s container", front->command, status_names[status]);
  if (freeze_cgroup(&c.plan, freeze) == 0) return 0;
  return complain("%s %s: %s", front->command, c.id, strerror(errno));
}

int command_update(struct front *front) {
  struct container c;
  struct plan plan;
  size_t length;
  const char *path = "";
  if (only_id(front, every, &c, 1) == NULL) return 1;
  if (!c.planned || status_of(&c) == STATUS_STOPPED) return complain("cannot update a container that does not run");
  if (ask_plan(front, &c, PLAN_OCI_UPDATE, &plan, &length) == NULL) return 1;
  return write_limits(&plan, &path) == 0 ? 0 : complain("write %s: %s", path, strerror(errno));
}
