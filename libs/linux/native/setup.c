#include "system.h"
#include "process.h"

int root = -1;

int open_in_root(const char *path, int flags) {
  struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
  return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

const char *by_descriptor(int fd) {
  static char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return path;
}

/* Makes the folders that lead to `path`, and returns the last one open; `name` is what is left to create in it. */
int open_parent(const char *path, const char **name) {
  char partial[4200];
  if (snprintf(partial, sizeof partial, "%s", path) >= (int)sizeof partial) return errno = ENAMETOOLONG, -1;
  for (size_t end = strlen(partial); end > 1 && partial[end - 1] == '/'; end--) partial[end - 1] = 0;
  int parent = open_in_root("/", O_PATH | O_DIRECTORY);
  char *slash = partial;
  for (;;) {
    char *next = strchr(slash + 1, '/');
    *name = path + (slash + 1 - partial);
    if (next == NULL || parent < 0) return parent;
    *next = 0;
    if (mkdirat(parent, slash + 1, 0755) != 0 && errno != EEXIST && errno != EROFS) return -1;
    close(parent);
    parent = open_in_root(partial, O_PATH | O_DIRECTORY);
    *next = '/';
    slash = next;
  }
}

/* Opens a place in the root, made first if it is missing: 1 a folder, 2 an empty file. */
int open_target(const char *path, uint64_t create) {
  int fd = open_in_root(path, O_PATH);
  if (fd >= 0 || create == 0 || errno != ENOENT) return fd;
  const char *name;
  int parent = open_parent(path, &name);
  if (parent < 0) return -1;
  char clean[256], link[PATH_MAX], target[2 * PATH_MAX];
  snprintf(clean, sizeof clean, "%s", name);
  clean[strcspn(clean, "/")] = 0;
  int made = create == 1 ? mkdirat(parent, clean, 0755) : mknodat(parent, clean, S_IFREG | 0644, 0);
  if (made != 0 && errno != EEXIST) return -1;
  ssize_t length = made == 0 ? -1 : readlinkat(parent, clean, link, sizeof link - 1);
  close(parent);
  if (length < 0) return open_in_root(path, O_PATH);
  /* A symlink to nothing, as images have it for resolv.conf: what it leads to is made, within the root. */
  snprintf(target, sizeof target, "%.*s%.*s", *link == '/' ? 0 : (int)(name - path), path, (int)length, link);
  return open_target(target, create);
}

static void mount_root(const struct plan *plan) {
  if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) != 0) fail("make mounts slaves", "/");
  const struct record *overlay = plan_find(plan, OP_ROOT_OVERLAY), *bind = plan_find(plan, OP_ROOT_BIND);
  const char *place = (overlay ? overlay : bind)->f[0].text;
  if (overlay != NULL && mount("overlay", place, "overlay", 0, overlay->f[1].text) != 0) fail("mount overlay", place);
  if (bind != NULL && mount(bind->f[1].text, place, NULL, MS_BIND | MS_REC, NULL) != 0) fail("bind root", bind->f[1].text);
  if (mount(NULL, place, NULL, MS_PRIVATE, NULL) != 0) fail("make root private", place);
  root = open(place, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) fail("open root", place);
}

void bind_descriptor(int source, int place, const char *path) {
  char from[64];
  snprintf(from, sizeof from, "%s", by_descriptor(source));
  if (mount(from, by_descriptor(place), NULL, MS_BIND, NULL) != 0) fail("bind", path);
  close(place);
}

static void bind_device(const char *path, int parent, const char *name, dev_t number) {
  struct stat found;
  int source = open(path, O_PATH | O_CLOEXEC);
  if (source < 0 || fstat(source, &found) != 0) fail("open device to bind", path);
  if (S_ISDIR(found.st_mode) || found.st_rdev != number) errno = ENODEV, fail("check device to bind", path);
  int place = openat(parent, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
  if (place < 0) fail("create device", path);
  bind_descriptor(source, place, path);
  close(source);
}

void make_device(const struct record *r) {
  const char *path = r->f[0].text, *name;
  mode_t mode = (mode_t)r->f[1].number;
  int parent = open_parent(path, &name);
  if (parent < 0) fail("open device folder", path);
  dev_t number = makedev((unsigned)r->f[2].number, (unsigned)r->f[3].number);
  struct stat found;
  int made = mknodat(parent, name, mode, number) == 0;
  /* Without a mount at /dev it may be there from the last time: the device, or the file that one was bound on. */
  if (!made && errno == EEXIST && fstatat(parent, name, &found, AT_SYMLINK_NOFOLLOW) == 0) {
    made = found.st_rdev == number && (found.st_mode & S_IFMT) == (mode & S_IFMT);
    errno = S_ISREG(found.st_mode) ? EPERM : EEXIST;
  }
  if (!made) {
    /* Not allowed in a user namespace: the host's own device is bound instead, if it is that one. */
    if (errno != EPERM || S_ISFIFO(mode)) fail("mknod", path);
    bind_device(path, parent, name, number);
    close(parent);
    return;
  }
  if (fchmodat(parent, name, mode & 07777, 0) != 0) fail("chmod", path);
  if (fchownat(parent, name, (uid_t)r->f[4].number, (gid_t)r->f[5].number, AT_SYMLINK_NOFOLLOW) != 0) fail("chown", path);
  close(parent);
}

void make_symlink(const struct record *r) {
  const char *name;
  int parent = open_parent(r->f[1].text, &name);
  if (parent < 0) fail("open link folder", r->f[1].text);
  if (symlinkat(r->f[0].text, parent, name) != 0 && errno != EEXIST) fail("symlink", r->f[1].text);
  close(parent);
}

static void mask(const char *path) {
  struct stat target, null;
  int fd = open_in_root(path, O_PATH);
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) return;
  if (fd < 0 || fstat(fd, &target) != 0) fail("open masked path", path);
  if (S_ISDIR(target.st_mode)) {
    if (mount("tmpfs", by_descriptor(fd), "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0k") != 0)
      fail("mask folder", path);
    close(fd);
    return;
  }
  /* What hides a file must be the real null device, whatever someone put in its place. */
  int source = open("/dev/null", O_PATH | O_CLOEXEC);
  if (source < 0 || fstat(source, &null) != 0 || !S_ISCHR(null.st_mode) || null.st_rdev != makedev(1, 3))
    fail("check the null device", "/dev/null");
  bind_descriptor(source, fd, path);
  close(source);
}

static void make_readonly(const char *path) {
  int fd = open_in_root(path, O_PATH);
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) return;
  if (fd < 0) fail("open read-only path", path);
  struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
  int copy = (int)syscall(SYS_open_tree, fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
  if (copy < 0 || syscall(SYS_mount_setattr, copy, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr) != 0 ||
      syscall(SYS_move_mount, copy, "", fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0)
    fail("make read-only", path);
  close(copy);
  close(fd);
}

void protect_paths(const struct plan *plan) {
  const struct record *r, *cwd = plan_find(plan, OP_CWD);
  size_t at;
  for (at = 0; (r = plan_next(plan, OP_READONLY, &at)) != NULL;) make_readonly(r->f[0].text);
  for (at = 0; (r = plan_next(plan, OP_MASK, &at)) != NULL;) mask(r->f[0].text);
  int fd = open_target(cwd->f[0].text, 1);
  if (fd < 0 && errno != EROFS && errno != EACCES) fail("create working directory", cwd->f[0].text);
  if (fd >= 0) close(fd);
}

void build_root(const struct plan *plan) {
  const struct record *r;
  size_t at;
  umask(0);
  set_namespaces_up(plan);
  if (set_oom_score(plan, 0) != 0) fail("write oom_score_adj", "");
  mount_root(plan);
  for (at = 0; (r = plan_next(plan, OP_ATTACH, &at)) != NULL;) attach(r, -1, 0);
  for (at = 0; (r = plan_next(plan, OP_DEVICE, &at)) != NULL;) make_device(r);
  for (at = 0; (r = plan_next(plan, OP_SYMLINK, &at)) != NULL;) make_symlink(r);
  protect_paths(plan);
  change_root(plan);
}

void drop_bounding(uint64_t keep) {
  for (unsigned cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++) {
    if ((cap >= 64 || (keep >> cap & 1) == 0) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0)
      fail("drop bounding capability", "");
  }
}

void set_capabilities(const struct record *caps) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2];
  for (int half = 0; half < 2; half++) {
    data[half].effective = (uint32_t)(caps->f[1].number >> (32 * half));
    data[half].permitted = (uint32_t)(caps->f[2].number >> (32 * half));
    data[half].inheritable = (uint32_t)(caps->f[3].number >> (32 * half));
  }
  if (syscall(SYS_capset, &header, data) != 0) fail("capset", "");
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) fail("clear ambient capabilities", "");
  for (unsigned cap = 0; cap < 64; cap++) {
    if ((caps->f[4].number >> cap & 1) && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) != 0)
      fail("raise ambient capability", "");
  }
}

void set_user(const struct plan *plan, const struct record *process) {
  gid_t groups[1024];
  size_t at = 0, count = 0;
  for (const struct record *r; (r = plan_next(plan, OP_GROUP, &at)) != NULL;) groups[count++] = (gid_t)r->f[0].number;
  uid_t uid = (uid_t)process->f[0].number;
  gid_t gid = (gid_t)process->f[1].number;
  if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) fail("keep capabilities", "");
  if (setgroups(count, groups) != 0 && (count > 0 || errno != EPERM)) fail("setgroups", "");
  if (setresgid(gid, gid, gid) != 0) fail("setresgid", "");
  if (setresuid(uid, uid, uid) != 0) fail("setresuid", "");
}

/* Executes the file, or with `probe` only answers whether it may be tried; errno tells what is wrong with it. */
static int try_file(const char *file, char **arguments, char **environment, int probe) {
  struct stat status;
  if (!probe) return execve(file, arguments, environment);
  if (stat(file, &status) != 0) return errno == EACCES || errno == ELOOP ? 0 : -1;
  if (S_ISREG(status.st_mode) && (status.st_mode & 0111)) return 0;
  return errno = EACCES, -1;
}

/* The container's own PATH decides, as it would for a shell inside. With `probe` it returns if the program may be tried. */
void execute(char **arguments, char **environment, int probe) {
  const char *path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  char file[4200];
  int denied = 0;
  if (strchr(arguments[0], '/') != NULL) {
    if (try_file(arguments[0], arguments, environment, probe) == 0) return;
    fail("exec", arguments[0]);
  }
  for (char **variable = environment; *variable != NULL; variable++) {
    if (strncmp(*variable, "PATH=", 5) == 0) path = *variable + 5;
  }
  for (int length; *path != 0; path += length + (path[length] == ':')) {
    length = (int)strcspn(path, ":");
    snprintf(file, sizeof file, "%.*s/%s", length, path, arguments[0]);
    if (length == 0) continue;
    if (try_file(file, arguments, environment, probe) == 0) return;
    if (errno == EACCES) denied = 1;
    else if (errno != ENOENT && errno != ENOTDIR) fail("exec", file);
  }
  errno = denied ? EACCES : ENOENT;
  fail("exec", arguments[0]);
}

char **list_of(const struct plan *plan, uint16_t op) {
  size_t at = 0, count = 0;
  char **list = calloc(plan_count(plan, op) + 2, sizeof *list);
  if (list == NULL) fail("allocate", "");
  for (const struct record *r; (r = plan_next(plan, op, &at)) != NULL;) list[count++] = (char *)(uintptr_t)r->f[0].text;
  return list;
}
