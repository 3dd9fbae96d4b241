/* The container's tree: its root, and every mount by descriptor, so that no symlink that is swapped meanwhile leads out. */
#include "system.h"
#include "oci.h"

/* Sources of binds that the front opened, in the order of the plan's mounts; -1 for those the container opens. */
static int *sources;

static int attributes(int fd, unsigned flags, uint64_t set, uint64_t clear, uint64_t propagation, int user) {
  struct mount_attr attr = {.attr_set = set, .attr_clr = clear, .propagation = propagation};
  if (user >= 0) {
    attr.attr_set |= MOUNT_ATTR_IDMAP;
    attr.userns_fd = (uint64_t)user;
  }
  if (attr.attr_set == 0 && attr.attr_clr == 0 && propagation == 0) return 0;
  return (int)syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | flags, &attr, sizeof attr);
}

static int clone_source(const struct record *r) {
  unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (r->f[3].number & ATTACH_RECURSIVE ? AT_RECURSIVE : 0u);
  struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
  if ((r->f[3].number & ATTACH_PLAIN_SOURCE) == 0) return (int)syscall(SYS_open_tree, AT_FDCWD, r->f[0].text, flags);
  int fd = (int)syscall(SYS_openat2, AT_FDCWD, r->f[0].text, &how, sizeof how);
  return fd < 0 ? -1 : (int)syscall(SYS_open_tree, fd, "", flags | AT_EMPTY_PATH);
}

const char *open_sources(const struct plan *plan, const char **path) {
  const struct record *r, *namespaces = plan_find(plan, OP_NAMESPACES);
  int outside = (namespaces->f[0].number & CLONE_NEWUSER) != 0;
  size_t index = 0;
  for (size_t at = 0; (r = plan_next(plan, OP_NAMESPACE_PATH, &at)) != NULL;)
    outside |= r->f[0].number == CLONE_NEWUSER;
  if ((sources = malloc((plan_count(plan, OP_ATTACH) + 1) * sizeof *sources)) == NULL) return "allocate";
  for (size_t at = 0; (r = plan_next(plan, OP_ATTACH, &at)) != NULL; index++) {
    unsigned map = (unsigned)r->f[11].number, flags = r->f[3].number & ATTACH_MAP_RECURSIVE ? AT_RECURSIVE : 0u;
    int wanted = (r->f[3].number & (ATTACH_BIND | ATTACH_REMOUNT)) == ATTACH_BIND && (outside || map != 0);
    /* The container's root may not reach or map it: done here, where the caller's rights hold; rootless it has no more. */
    sources[index] = wanted ? clone_source(r) : -1;
    *path = r->f[0].text;
    if (wanted && sources[index] < 0 && (map != 0 || errno != EPERM)) return "open mount source";
    if (map == 0 || !wanted) continue;
    int user = open_id_map(plan, map);
    if (user < 0) return "make id map for";
    if (attributes(sources[index], flags, 0, 0, 0, user) != 0) return "map ids of mount";
    close(user);
  }
  return NULL;
}

static int is_folder(int fd) {
  struct stat status;
  return fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
}

static int open_place(const struct record *r, int folder) {
  const char *target = r->f[1].text;
  if (r->f[3].number & ATTACH_NO_SYMLINKS) {
    /* proc and sysfs on a symlink would put what protects them somewhere else. */
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS};
    int fd = (int)syscall(SYS_openat2, root, target, &how, sizeof how);
    if (fd >= 0 || errno != ENOENT) return fd;
  }
  return open_target(target, r->f[3].number & ATTACH_NEEDS_PLACE ? 0 : folder ? 1 : 2);
}

static void own(int fd, const char *name, const struct stat *status) {
  if (fchown(fd, status->st_uid, status->st_gid) != 0 || fchmod(fd, status->st_mode & 07777) != 0) fail("copy up", name);
  close(fd);
}

static void copy_file(int from, int to, const char *name, const struct stat *status) {
  int in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  int out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  off_t at = 0;
  if (in < 0 || out < 0) fail("copy up", name);
  while (at < status->st_size) {
    if (sendfile(out, in, &at, (size_t)(status->st_size - at)) <= 0) fail("copy up", name);
  }
  own(out, name, status);
  close(in);
}

/* tmpcopyup: what the image has at that place becomes the new tmpfs's content. */
static void copy_tree(int from, int to, int depth) {
  DIR *entries = depth < 64 ? fdopendir(openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) : NULL;
  char link[4200];
  if (entries == NULL) fail("copy up", "");
  for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
    struct stat status;
    const char *name = entry->d_name;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
    if (fstatat(from, name, &status, AT_SYMLINK_NOFOLLOW) != 0) fail("copy up", name);
    if (S_ISREG(status.st_mode)) {
      copy_file(from, to, name, &status);
    } else if (S_ISLNK(status.st_mode)) {
      ssize_t length = readlinkat(from, name, link, sizeof link - 1);
      if (length < 0) fail("copy up", name);
      link[length] = 0;
      if (symlinkat(link, to, name) != 0) fail("copy up", name);
      if (fchownat(to, name, status.st_uid, status.st_gid, AT_SYMLINK_NOFOLLOW) != 0) fail("copy up", name);
    } else if (S_ISDIR(status.st_mode)) {
      if (mkdirat(to, name, 0700) != 0) fail("copy up", name);
      int inner = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
      int made = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
      if (inner < 0 || made < 0) fail("copy up", name);
      copy_tree(inner, made, depth + 1);
      own(made, name, &status);
      close(inner);
    } else if (mknodat(to, name, status.st_mode, status.st_rdev) != 0) {
      fail("copy up", name);
    }
  }
  closedir(entries);
}

/* A mount whose root is `fd` by now, or the one at the target again. */
static void finish(const struct record *r, int fd, int bind) {
  const char *target = r->f[1].text;
  uint64_t set = r->f[6].number, clear = r->f[7].number;
  /* In a user namespace flags of the source may be locked: they stay, what was asked for holds. */
  if (bind && attributes(fd, 0, set, clear, 0, -1) != 0 && (errno != EPERM || attributes(fd, 0, set, 0, 0, -1) != 0))
    fail("set mount flags", target);
  if (attributes(fd, AT_RECURSIVE, r->f[8].number, r->f[9].number, 0, -1) != 0) fail("set recursive mount flags", target);
}

static void propagate(const struct record *r, int fd, uint64_t otherwise) {
  uint64_t wanted = r->f[10].number ? r->f[10].number : otherwise;
  uint64_t kind = wanted & ~(uint64_t)MS_REC;
  if (kind != 0 && attributes(fd, wanted & MS_REC ? AT_RECURSIVE : 0u, 0, 0, kind, -1) != 0)
    fail("set propagation", r->f[1].text);
}

void attach(const struct record *r, int source, uint64_t propagation) {
  uint64_t how = r->f[3].number;
  const char *target = r->f[1].text;
  int bind = (how & ATTACH_BIND) != 0, ours = source >= 0, fd = -1;
  if (how & ATTACH_REMOUNT) {
    int at = open_in_root(target, O_PATH);
    if (at < 0) fail("open mount", target);
    unsigned long flags = MS_REMOUNT | r->f[4].number | (bind ? (unsigned)MS_BIND : 0u);
    if (mount(NULL, by_descriptor(at), NULL, flags, r->f[5].text) != 0) fail("remount", target);
    close(at);
    return;
  }
  if (bind && !ours && (source = clone_source(r)) < 0) fail("open mount source", r->f[0].text);
  int place = open_place(r, !bind || is_folder(source));
  if (place < 0) fail("open mount point", target);
  if (bind) {
    finish(r, source, 1);
    if (syscall(SYS_move_mount, source, "", place, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0)
      fail("attach mount", target);
    fd = source;
  } else {
    int below = how & ATTACH_COPY_UP ? open_in_root(target, O_RDONLY | O_DIRECTORY) : -1;
    if (mount(r->f[0].text, by_descriptor(place), r->f[2].text, r->f[4].number, r->f[5].text) != 0) fail("mount", target);
    fd = open_in_root(target, O_PATH);
    if (fd < 0) fail("open mount", target);
    if (below >= 0) {
      int to = open_in_root(target, O_RDONLY | O_DIRECTORY);
      if (to < 0) fail("open mount", target);
      copy_tree(below, to, 0);
      close(to);
      close(below);
    }
    finish(r, fd, 0);
  }
  propagate(r, fd, bind && ours ? propagation : 0);
  close(fd);
  close(place);
}

/* The mount that holds the bundle must not pass on what happens here; walks up to that mount's own root. */
static void make_parent_private(const char *path) {
  int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  for (int depth = 0; fd >= 0 && depth < 4096; depth++) {
    if (attributes(fd, 0, 0, 0, MS_PRIVATE, -1) == 0) break;
    if (errno != EINVAL) fail("make private the mount of", path);
    int up = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
    close(fd);
    fd = up;
  }
  if (fd < 0) fail("open root", path);
  close(fd);
}

static void mount_root(const struct plan *plan) {
  const struct record *r = plan_find(plan, OP_ROOT);
  const char *path = r->f[0].text;
  if (mount(NULL, "/", NULL, r->f[1].number, NULL) != 0) fail("set propagation of", "/");
  make_parent_private(path);
  root = (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
  if (root < 0) fail("open root", path);
  if (syscall(SYS_move_mount, root, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) != 0) fail("attach root", path);
}

void mount_everything(const struct plan *plan) {
  const struct record *r;
  size_t at, index = 0;
  umask(0);
  mount_root(plan);
  uint64_t propagation = plan_find(plan, OP_ROOT)->f[1].number;
  for (at = 0; (r = plan_next(plan, OP_ATTACH, &at)) != NULL; index++) attach(r, sources[index], propagation);
  for (at = 0; (r = plan_next(plan, OP_DEVICE, &at)) != NULL;) make_device(r);
  for (at = 0; (r = plan_next(plan, OP_SYMLINK, &at)) != NULL;) make_symlink(r);
}

void change_root(const struct plan *plan) {
  const struct record *r = plan_find(plan, OP_ROOT), *options = plan_find(plan, OP_OPTIONS);
  if (fchdir(root) != 0) fail("chdir", "/");
  if (options != NULL && (options->f[0].number & OPTION_NO_PIVOT)) {
    if (mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0) fail("move root", "/");
  } else {
    int old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (old < 0 || syscall(SYS_pivot_root, ".", ".") != 0) fail("pivot_root", "/");
    /* Detaching the host's tree here must not detach it there. */
    if (fchdir(old) != 0 || mount(NULL, ".", NULL, MS_REC | MS_SLAVE, NULL) != 0) fail("make slaves", "/");
    if (umount2(".", MNT_DETACH) != 0) fail("detach the old root", "/");
  }
  if (chdir("/") != 0) fail("chdir", "/");
  if (r != NULL && r->f[2].number != 0 && mount(NULL, "/", NULL, r->f[2].number, NULL) != 0) fail("set propagation of root", "/");
  if (plan_find(plan, OP_PROCESS)->f[3].number & PROCESS_READONLY_ROOT) {
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    if (syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, &attr, sizeof attr) != 0) fail("make root read-only", "/");
  }
  close(root);
}
