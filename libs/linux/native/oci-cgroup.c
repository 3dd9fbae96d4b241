/* The container's cgroups, v1 (one folder a hierarchy) or v2 (one folder): made, filled, limited, frozen, removed. */
#include "system.h"
#include "oci.h"

static int write_file(const char *folder, const char *name, const char *text) {
  char path[4400];
  snprintf(path, sizeof path, "%s%s%s", folder, *name ? "/" : "", name);
  return write_text(path, text);
}

static int read_small(const char *folder, const char *name, char *text, size_t size) {
  char path[4400];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  ssize_t got = read(fd, text, size - 1);
  close(fd);
  text[got > 0 ? got : 0] = 0;
  return got > 0 ? 0 : -1;
}

/* A new cpuset is empty, whoever made it, and no process may enter it before it has its parent's CPUs and memory nodes. */
static void inherit_cpuset(const char *folder) {
  static const char *const names[] = {"cpuset.cpus", "cpuset.mems"};
  char parent[4400], text[4096];
  for (int i = 0; i < 2; i++) {
    if (read_small(folder, names[i], text, sizeof text) == 0 && text[0] != '\n') continue;
    snprintf(parent, sizeof parent, "%s/..", folder);
    if (read_small(parent, names[i], text, sizeof text) == 0) write_file(folder, names[i], text);
  }
}

int make_folders(const char *path, mode_t mode, int cpuset) {
  char partial[4200];
  if (snprintf(partial, sizeof partial, "%s", path) >= (int)sizeof partial) return -1;
  for (char *at = partial + 1;; at++) {
    if (*at != '/' && *at != 0) continue;
    char end = *at;
    *at = 0;
    if (mkdir(partial, mode) != 0 && errno != EEXIST && errno != EROFS) return -1;
    if (cpuset) inherit_cpuset(partial);
    if (end == 0) break;
    *at = end;
  }
  return access(path, F_OK);
}

void join_cgroups(const struct plan *plan) {
  const struct record *r;
  for (size_t at = 0; (r = plan_next(plan, OP_CGROUP_FOLDER, &at)) != NULL;) {
    /* A thread that moves itself does so at once; for another, or a whole process, all forks of the machine wait some 10 ms. */
    if (write_file(r->f[1].text, *r->f[0].text ? "tasks" : "cgroup.procs", "0") == 0) continue;
    if ((r->f[2].number & FOLDER_MAY_FAIL) == 0 || (errno != EACCES && errno != EPERM && errno != ENOENT))
      fail("enter cgroup", r->f[1].text);
  }
}

static int attach_device_filter(const struct record *r) {
  static const char license[] = "Apache-2.0";
  int cgroup = open(r->f[0].text, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (cgroup < 0) return -1;
  union bpf_attr load = {.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insn_cnt = (uint32_t)(r->f[1].number / 8),
                         .insns = (uint64_t)(uintptr_t)r->f[1].text, .license = (uint64_t)(uintptr_t)license};
  int program = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
  if (program < 0) return close(cgroup), -1;
  /* All filters of a cgroup must agree, so an update takes the place of the one that is there. */
  uint32_t old = 0;
  union bpf_attr query = {.query = {.target_fd = (uint32_t)cgroup, .attach_type = BPF_CGROUP_DEVICE, .prog_cnt = 1,
                                    .prog_ids = (uint64_t)(uintptr_t)&old}};
  if (syscall(SYS_bpf, BPF_PROG_QUERY, &query, sizeof query) != 0) old = 0;
  union bpf_attr find = {.prog_id = old};
  int before = old == 0 ? -1 : (int)syscall(SYS_bpf, BPF_PROG_GET_FD_BY_ID, &find, sizeof find);
  union bpf_attr attach = {.target_fd = (uint32_t)cgroup, .attach_type = BPF_CGROUP_DEVICE, .attach_bpf_fd = (uint32_t)program,
                           .attach_flags = BPF_F_ALLOW_MULTI | (before >= 0 ? BPF_F_REPLACE : 0),
                           .replace_bpf_fd = before >= 0 ? (uint32_t)before : 0};
  int result = (int)syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach);
  if (before >= 0) close(before);
  close(program);
  close(cgroup);
  return result;
}

int write_limits(const struct plan *plan, const char **path) {
  const struct record *r;
  for (size_t at = 0; (r = plan_next(plan, OP_CGROUP_WRITE, &at)) != NULL;) {
    *path = r->f[0].text;
    if (write_file(*path, "", r->f[1].text) != 0 && r->f[2].number == 0) return -1;
  }
  r = plan_find(plan, OP_CGROUP_DEVICES);
  if (r == NULL) return 0;
  *path = r->f[0].text;
  return attach_device_filter(r);
}

/* The folder that can freeze: the v1 freezer or the one of v2. */
static const char *freezer_of(const struct plan *plan, int *unified) {
  const struct record *r;
  for (size_t at = 0; (r = plan_next(plan, OP_CGROUP_FOLDER, &at)) != NULL;) {
    *unified = *r->f[0].text == 0;
    if (*unified || strcmp(r->f[0].text, "freezer") == 0) return r->f[1].text;
  }
  return NULL;
}

int cgroup_frozen(const struct plan *plan) {
  char text[64];
  int unified;
  const char *folder = freezer_of(plan, &unified);
  if (folder == NULL) return 0;
  if (read_small(folder, unified ? "cgroup.freeze" : "freezer.state", text, sizeof text) != 0) return 0;
  return unified ? text[0] == '1' : strncmp(text, "FROZEN", 6) == 0 || strncmp(text, "FREEZING", 8) == 0;
}

int freeze_cgroup(const struct plan *plan, int frozen) {
  char text[4096];
  int unified;
  const char *folder = freezer_of(plan, &unified);
  if (folder == NULL) return errno = ENOTSUP, -1;
  for (int tries = 0; tries < 1000; tries++) {
    if (unified && tries == 0 && write_file(folder, "cgroup.freeze", frozen ? "1" : "0") != 0) return -1;
    /* Of v1: a process that forks may slip through, writing again catches it; a thaw between helps a stuck freeze. */
    if (!unified && frozen && tries % 50 == 49) write_file(folder, "freezer.state", "THAWED");
    if (!unified && write_file(folder, "freezer.state", frozen ? "FROZEN" : "THAWED") != 0) return -1;
    if (read_small(folder, unified ? "cgroup.events" : "freezer.state", text, sizeof text) != 0) return -1;
    if (unified && strstr(text, frozen ? "frozen 1" : "frozen 0") != NULL) return 0;
    if (!unified && strncmp(text, frozen ? "FROZEN" : "THAWED", 6) == 0) return 0;
    usleep(tries < 10 ? 200 : 5000);
  }
  if (frozen) write_file(folder, unified ? "cgroup.freeze" : "freezer.state", unified ? "0" : "THAWED");
  return errno = ETIMEDOUT, -1;
}

static int each_in(const char *folder, int depth, void (*call)(pid_t, void *), void *context) {
  char path[4400];
  snprintf(path, sizeof path, "%s/cgroup.procs", folder);
  FILE *list = fopen(path, "re");
  int count = 0;
  for (int pid; list != NULL && fscanf(list, "%d", &pid) == 1; count++) call(pid, context);
  if (list != NULL) fclose(list);
  DIR *entries = depth < 32 ? opendir(folder) : NULL;
  for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
    if (entry->d_type != DT_DIR || entry->d_name[0] == '.') continue;
    if (snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) < (int)sizeof path)
      count += each_in(path, depth + 1, call, context);
  }
  if (entries != NULL) closedir(entries);
  return count;
}

int each_process(const struct plan *plan, void (*call)(pid_t, void *), void *context) {
  const struct record *r;
  const char *chosen = NULL;
  /* Of v1, a hierarchy where a process does not move itself: freezer, pids or memory; else the first. */
  for (size_t at = 0; (r = plan_next(plan, OP_CGROUP_FOLDER, &at)) != NULL;) {
    if (chosen == NULL || strcmp(r->f[0].text, "pids") == 0) chosen = r->f[1].text;
  }
  return chosen == NULL ? 0 : each_in(chosen, 0, call, context);
}

static void send_signal(pid_t pid, void *number) {
  if (pid > 1) kill(pid, *(int *)number);
}

int make_cgroups(const struct plan *plan, const char **path) {
  const struct record *r;
  for (size_t at = 0; (r = plan_next(plan, OP_CGROUP_FOLDER, &at)) != NULL;) {
    *path = r->f[1].text;
    if (make_folders(*path, 0755, (r->f[2].number & FOLDER_CPUSET) != 0) == 0) continue;
    /* Who may not make groups goes without, as long as no limit is asked for: that write fails. */
    if ((r->f[2].number & FOLDER_MAY_FAIL) == 0 || (errno != EACCES && errno != EPERM && errno != ENOENT)) return -1;
  }
  /* As for runc: allowed, but what belongs to the container and what does not can no longer be told apart. */
  int none = 0, others = each_process(plan, send_signal, &none);
  if (others > 0) remark("warning", "container's cgroup is not empty: %d process(es) are in it", others);
  return 0;
}

void kill_cgroup(const struct plan *plan, int number) {
  for (int tries = 0; tries < 500; tries++) {
    if (each_process(plan, send_signal, &number) == 0 || number != SIGKILL) return;
    usleep(tries < 20 ? 500 : 10000);
  }
}

static int remove_tree(const char *folder, int depth) {
  char path[4400];
  for (int tries = 0; tries < 200; tries++) {
    if (rmdir(folder) == 0 || errno == ENOENT) return 0;
    if (errno != EBUSY && errno != ENOTEMPTY) return -1;
    DIR *entries = depth < 32 ? opendir(folder) : NULL;
    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
      if (entry->d_type != DT_DIR || entry->d_name[0] == '.') continue;
      if (snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) < (int)sizeof path) remove_tree(path, depth + 1);
    }
    if (entries != NULL) closedir(entries);
    if (rmdir(folder) == 0) return 0;
    /* The last process is a zombie for a moment longer than its pidfd says. */
    usleep(tries < 20 ? 300 : 10000);
  }
  return errno = EBUSY, -1;
}

int remove_cgroups(const struct plan *plan) {
  const struct record *r;
  int result = 0;
  for (size_t at = 0; (r = plan_next(plan, OP_CGROUP_FOLDER, &at)) != NULL;) {
    /* Never one that was there before for others: those have no folder of their own in the plan. */
    if (remove_tree(r->f[1].text, 0) != 0) result = -1;
  }
  return result;
}
