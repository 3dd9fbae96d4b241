#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* glibc's <sys/mount.h> and <linux/mount.h> exclude each other in older releases; these two calls are all we need. */
int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount2(const char *, int);
#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif

/* The container's root. Everything below resolves in it, so that no symlink of an image leads outside. */
static int root = -1;

static int open_in_root(const char *path, int flags) {
  struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
  return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

static const char *by_descriptor(int fd) {
  static char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return path;
}

/* Makes the folders that lead to `path`, and returns the last one open; `name` is what is left to create in it. */
static int open_parent(const char *path, const char **name) {
  char partial[4200];
  if (strlen(path) >= sizeof partial) {
    errno = ENAMETOOLONG;
    return -1;
  }
  strcpy(partial, path);
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
static int open_target(const char *path, uint64_t create) {
  int fd = open_in_root(path, O_PATH);
  if (fd >= 0 || create == 0 || errno != ENOENT) return fd;
  const char *name;
  int parent = open_parent(path, &name);
  if (parent < 0) return -1;
  char clean[256];
  snprintf(clean, sizeof clean, "%s", name);
  clean[strcspn(clean, "/")] = 0;
  if (create == 1) {
    if (mkdirat(parent, clean, 0755) != 0 && errno != EEXIST) return -1;
  } else {
    int file = openat(parent, clean, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (file < 0) return -1;
    close(file);
  }
  close(parent);
  return open_in_root(path, O_PATH);
}

static void set_attributes(const char *path, uint64_t attributes, int recursive) {
  struct mount_attr attr = {.attr_set = attributes};
  int fd = open_in_root(path, O_PATH);
  if (fd < 0) fail("open mount", path);
  unsigned flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0u);
  if (syscall(SYS_mount_setattr, fd, "", flags, &attr, sizeof attr) != 0) fail("mount_setattr", path);
  close(fd);
}

static uint64_t attributes_of(uint64_t flags) {
  return (flags & MS_RDONLY ? MOUNT_ATTR_RDONLY : 0) | (flags & MS_NOSUID ? MOUNT_ATTR_NOSUID : 0) |
         (flags & MS_NODEV ? MOUNT_ATTR_NODEV : 0) | (flags & MS_NOEXEC ? MOUNT_ATTR_NOEXEC : 0);
}

static void mount_root(const struct plan *plan) {
  if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) != 0) fail("make mounts slaves", "/");
  const struct record *overlay = plan_find(plan, OP_ROOT_OVERLAY), *bind = plan_find(plan, OP_ROOT_BIND);
  const char *place = (overlay ? overlay : bind)->f[0].text;
  if (overlay != NULL && mount("overlay", place, "overlay", 0, overlay->f[1].text) != 0) fail("mount overlay", place);
  if (bind != NULL && mount(bind->f[1].text, place, NULL, MS_BIND | MS_REC, NULL) != 0)
    fail("bind root", bind->f[1].text);
  if (mount(NULL, place, NULL, MS_PRIVATE, NULL) != 0) fail("make root private", place);
  root = open(place, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) fail("open root", place);
}

static void mount_one(const struct record *r) {
  const char *source = r->f[0].text, *target = r->f[1].text;
  uint64_t flags = r->f[3].number;
  int fd = open_target(target, r->f[5].number);
  if (fd < 0) fail("open mount point", target);
  if (flags & MS_BIND) {
    if (mount(source, by_descriptor(fd), NULL, MS_BIND | (flags & MS_REC), NULL) != 0) fail("bind", source);
    if (attributes_of(flags) != 0) set_attributes(target, attributes_of(flags), (flags & MS_REC) != 0);
  } else if (mount(source, by_descriptor(fd), r->f[2].text, flags, r->f[4].text) != 0) {
    fail("mount", target);
  }
  close(fd);
}

static void make_device(const struct record *r) {
  const char *path = r->f[0].text, *name;
  mode_t mode = (mode_t)r->f[1].number;
  int parent = open_parent(path, &name);
  if (parent < 0) fail("open device folder", path);
  dev_t number = makedev((unsigned)r->f[2].number, (unsigned)r->f[3].number);
  if (mknodat(parent, name, mode, number) != 0) fail("mknod", path);
  if (fchmodat(parent, name, mode & 0777, 0) != 0) fail("chmod", path);
  if (fchownat(parent, name, (uid_t)r->f[4].number, (gid_t)r->f[5].number, AT_SYMLINK_NOFOLLOW) != 0)
    fail("chown", path);
  close(parent);
}

static void make_symlink(const struct record *r) {
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
  } else {
    /* What hides a file must be the real null device, whatever someone put in its place. */
    int source = open("/dev/null", O_PATH | O_CLOEXEC);
    if (source < 0 || fstat(source, &null) != 0 || !S_ISCHR(null.st_mode) || null.st_rdev != makedev(1, 3))
      fail("check the null device", "/dev/null");
    char from[64];
    snprintf(from, sizeof from, "%s", by_descriptor(source));
    if (mount(from, by_descriptor(fd), NULL, MS_BIND, NULL) != 0) fail("mask file", path);
    close(source);
  }
  close(fd);
}

static void make_readonly(const char *path) {
  int fd = open_in_root(path, O_PATH);
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) return;
  if (fd < 0) fail("open read-only path", path);
  char from[64];
  snprintf(from, sizeof from, "%s", by_descriptor(fd));
  if (mount(from, from, NULL, MS_BIND | MS_REC, NULL) != 0) fail("bind read-only path", path);
  close(fd);
  set_attributes(path, MOUNT_ATTR_RDONLY, 1);
}

static void write_oom_score(const struct record *process) {
  char text[16];
  int length = snprintf(text, sizeof text, "%d", (int)process->f[4].number - 1000);
  int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, text, (size_t)length) != length) fail("write oom_score_adj", text);
  close(fd);
}

void build_root(const struct plan *plan) {
  const struct record *r;
  size_t at;
  umask(0);
  if ((r = plan_find(plan, OP_HOSTNAME)) != NULL && sethostname(r->f[0].text, strlen(r->f[0].text)) != 0)
    fail("sethostname", r->f[0].text);
  if (plan_find(plan, OP_LOOPBACK) != NULL && loopback_up() != 0) fail("bring up loopback", "lo");
  write_oom_score(plan_find(plan, OP_PROCESS));
  mount_root(plan);
  for (at = 0; (r = plan_next(plan, OP_MOUNT, &at)) != NULL;) mount_one(r);
  for (at = 0; (r = plan_next(plan, OP_DEVICE, &at)) != NULL;) make_device(r);
  for (at = 0; (r = plan_next(plan, OP_SYMLINK, &at)) != NULL;) make_symlink(r);
  int cwd = open_target(plan_find(plan, OP_CWD)->f[0].text, 1);
  if (cwd < 0) fail("create working directory", plan_find(plan, OP_CWD)->f[0].text);
  close(cwd);
  for (at = 0; (r = plan_next(plan, OP_MASK, &at)) != NULL;) mask(r->f[0].text);
  for (at = 0; (r = plan_next(plan, OP_READONLY, &at)) != NULL;) make_readonly(r->f[0].text);
  if (fchdir(root) != 0 || syscall(SYS_pivot_root, ".", ".") != 0) fail("pivot_root", "/");
  if (umount2(".", MNT_DETACH) != 0) fail("detach the old root", "/");
  if (chdir("/") != 0) fail("chdir", "/");
  close(root);
  if (plan_find(plan, OP_PROCESS)->f[3].number & PROCESS_READONLY_ROOT) {
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    if (syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, &attr, sizeof attr) != 0) fail("make root read-only", "/");
  }
}

static void drop_bounding(uint64_t keep) {
  for (unsigned cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++) {
    if ((cap >= 64 || (keep >> cap & 1) == 0) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0)
      fail("drop bounding capability", "");
  }
}

static void set_capabilities(const struct record *caps) {
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

static void set_user(const struct plan *plan, const struct record *process) {
  gid_t groups[64];
  size_t at = 0, count = 0;
  for (const struct record *r; (r = plan_next(plan, OP_GROUP, &at)) != NULL;) groups[count++] = (gid_t)r->f[0].number;
  uid_t uid = (uid_t)process->f[0].number;
  gid_t gid = (gid_t)process->f[1].number;
  if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) fail("keep capabilities", "");
  if (setgroups(count, groups) != 0) fail("setgroups", "");
  if (setresgid(gid, gid, gid) != 0) fail("setresgid", "");
  if (setresuid(uid, uid, uid) != 0) fail("setresuid", "");
}

/* The container's own PATH decides, as it would for a shell inside. */
static void execute(char **arguments, char **environment) {
  const char *path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  if (strchr(arguments[0], '/') != NULL) {
    execve(arguments[0], arguments, environment);
    fail("exec", arguments[0]);
  }
  for (char **variable = environment; *variable != NULL; variable++) {
    if (strncmp(*variable, "PATH=", 5) == 0) path = *variable + 5;
  }
  int denied = 0;
  while (*path != 0) {
    char file[4200];
    int length = (int)strcspn(path, ":");
    snprintf(file, sizeof file, "%.*s/%s", length, path, arguments[0]);
    if (length > 0) execve(file, arguments, environment);
    if (length > 0 && errno == EACCES) denied = 1;
    else if (length > 0 && errno != ENOENT && errno != ENOTDIR) fail("exec", file);
    path += length;
    if (*path == ':') path++;
  }
  errno = denied ? EACCES : ENOENT;
  fail("exec", arguments[0]);
}

static char **list_of(const struct plan *plan, uint16_t op) {
  size_t at = 0, count = 0;
  char **list = calloc(plan_count(plan, op) + 1, sizeof *list);
  if (list == NULL) fail("allocate", "");
  for (const struct record *r; (r = plan_next(plan, op, &at)) != NULL;) list[count++] = (char *)(uintptr_t)r->f[0].text;
  return list;
}

void become(const struct plan *plan) {
  const struct record *r, *process = plan_find(plan, OP_PROCESS), *caps = plan_find(plan, OP_CAPABILITIES);
  const char *cwd = plan_find(plan, OP_CWD)->f[0].text;
  char here[4200];
  size_t at = 0;
  char **arguments = list_of(plan, OP_ARGUMENT), **environment = list_of(plan, OP_ENVIRONMENT);
  while ((r = plan_next(plan, OP_RLIMIT, &at)) != NULL) {
    struct rlimit limit = {.rlim_cur = r->f[1].number, .rlim_max = r->f[2].number};
    if (setrlimit((int)r->f[0].number, &limit) != 0) fail("setrlimit", "");
  }
  /* Nothing of the host may be reached from here on: every other descriptor closes at exec. */
  if (syscall(SYS_close_range, 3, ~0u, 4 /* CLOSE_RANGE_CLOEXEC */) != 0) fail("close_range", "");
  drop_bounding(caps->f[0].number);
  set_user(plan, process);
  set_capabilities(caps);
  if ((process->f[3].number & PROCESS_NO_NEW_PRIVILEGES) && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    fail("no_new_privs", "");
  if (chdir(cwd) != 0) fail("chdir", cwd);
  if (getcwd(here, sizeof here) == NULL || here[0] != '/') fail("check working directory", cwd);
  umask((mode_t)process->f[2].number);
  /* Who supervises it must not outlive it unnoticed. Set last: a change of credentials clears it. */
  if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) fail("set parent death signal", "");
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
  execute(arguments, environment);
  _exit(126);
}
