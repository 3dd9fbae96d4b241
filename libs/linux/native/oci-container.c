/* A container's folder: who may change it (flock), what it says, and its end. */
#include "system.h"
#include "oci.h"

const char *const status_names[] = {"creating", "created", "running", "paused", "stopped"};

/* As runc and crun: letters, digits and `_ + - .`, and no name of a folder itself. */
static int valid_id(const char *id) {
  if (*id == 0 || strlen(id) > 255 || strcmp(id, ".") == 0 || strcmp(id, "..") == 0) return 0;
  return id[strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")] == 0;
}

int make_container(const struct front *front, const char *id, struct container *c) {
  memset(c, 0, sizeof *c);
  if (!valid_id(id)) return complain("invalid container id \"%s\"", id);
  int top = make_folders(front->root, 0700, 0) != 0 ? -1 : open(front->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (top < 0) return complain("open %s: %s", front->root, strerror(errno));
  c->id = id;
  if (mkdirat(top, id, 0700) != 0) {
    int error = errno;
    close(top);
    return error == EEXIST ? complain("container with id %s exists already", id)
                           : complain("create folder of %s: %s", id, strerror(error));
  }
  c->folder = openat(top, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  close(top);
  if (c->folder < 0 || flock(c->folder, LOCK_EX | LOCK_NB) != 0)
    return complain("lock container %s: %s", id, strerror(errno));
  return 0;
}

static void parse_state(struct container *c) {
  size_t length;
  char *text = read_whole(c->folder, "state", 256, &length);
  unsigned long long started = 0;
  if (text == NULL) return;
  if (sscanf(text, "%d %llu %lld %d", &c->pid, &started, &c->created_ms, &c->running) != 4) c->pid = 0;
  c->started_at = started;
  free(text);
}

int open_container(const struct front *front, const char *id, struct container *c, int lock) {
  struct stat here, there;
  memset(c, 0, sizeof *c);
  c->id = id;
  if (!valid_id(id)) return complain("invalid container id \"%s\"", id);
  int top = open(front->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  c->folder = top < 0 ? -1 : openat(top, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  /* Who had the lock before may have removed the folder, and another one have taken its name. */
  int locked = c->folder >= 0 && (!lock || flock(c->folder, LOCK_EX) == 0);
  int same = locked && fstat(c->folder, &here) == 0 && fstatat(top, id, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
             here.st_ino == there.st_ino;
  if (top >= 0) close(top);
  if (!same) {
    if (c->folder >= 0) close(c->folder);
    c->folder = -1;
    return 1;
  }
  size_t length;
  c->bytes = (unsigned char *)read_whole(c->folder, "plan", PLAN_BYTES_MAX, &length);
  c->planned = c->bytes != NULL && plan_parse(&c->plan, c->bytes, length) == NULL && c->plan.kind == PLAN_OCI_CREATE;
  parse_state(c);
  return 0;
}

int write_state(struct container *c) {
  char text[256];
  int length = snprintf(text, sizeof text, "%d %llu %lld %d\n", (int)c->pid, (unsigned long long)c->started_at,
                        c->created_ms, c->running);
  return replace_file(c->folder, "state", text, (size_t)length, 0);
}

enum status status_of(const struct container *c) {
  if (c->pid == 0) return STATUS_CREATING;
  if (start_time_unless(c->pid, "ZX") != c->started_at) return STATUS_STOPPED;
  if (c->planned && cgroup_frozen(&c->plan)) return STATUS_PAUSED;
  return c->running ? STATUS_RUNNING : c->created_ms ? STATUS_CREATED : STATUS_CREATING;
}

char *state_json(const struct container *c, enum status status, pid_t pid) {
  char *text = NULL;
  const struct record *fixed = c->planned ? plan_find(&c->plan, OP_STATE) : NULL;
  /* The fixed members are made by the planner with JSON.stringify, the id has no character that needs an escape. */
  if (asprintf(&text, "{%s,\"status\":\"%s\",\"pid\":%d}",
               fixed ? fixed->f[0].text : "\"ociVersion\":\"1.2.0\",\"id\":\"\",\"bundle\":\"\"", status_names[status],
               (int)pid) < 0)
    return NULL;
  return text;
}

void remove_folder(const struct front *front, struct container *c) {
  DIR *entries = fdopendir(dup(c->folder));
  for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) unlinkat(c->folder, entry->d_name, 0);
  if (entries != NULL) closedir(entries);
  int top = open(front->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  unlinkat(top, c->id, AT_REMOVEDIR);
  close(top);
}

int wait_gone(pid_t pid, uint64_t started, int ms) {
  int process = open_process(pid, started);
  if (process < 0) return 0;
  struct pollfd polled = {process, POLLIN, 0};
  int result = poll(&polled, 1, ms) > 0 ? 0 : -1;
  close(process);
  return result;
}

int destroy_container(const struct front *front, struct container *c) {
  int result = 0;
  if (c->pid > 0) {
    int process = open_process(c->pid, c->started_at);
    if (process >= 0) {
      syscall(SYS_pidfd_send_signal, process, SIGKILL, NULL, 0);
      if (c->planned) freeze_cgroup(&c->plan, 0);
      close(process);
      if (wait_gone(c->pid, c->started_at, 10000) != 0) return complain("process %d does not end", (int)c->pid);
    }
  }
  if (c->planned) {
    kill_cgroup(&c->plan, SIGKILL);
    if (remove_cgroups(&c->plan) != 0) result = complain("remove cgroup of %s: %s", c->id, strerror(errno));
    char *state = state_json(c, STATUS_STOPPED, 0);
    /* The specification: a failed poststop hook is only a warning. */
    if (state != NULL) run_hooks(&c->plan, HOOK_POSTSTOP, state, plan_find(&c->plan, OP_BUNDLE)->f[0].text);
    free(state);
  }
  remove_folder(front, c);
  return result;
}
