/* What the parts of kiln-init share: failure reports, processes, files. */
#ifndef KILN_PROCESS_H
#define KILN_PROCESS_H

#include "plan.h"

/* How a step that could not be done travels from the child through a pipe to whoever called `kiln-init start`. */
struct failure {
  int error;
  char step[32];
  char path[400];
};

/* Where `fail` writes: the pipe's end. It ends the process with 127. */
extern int failure_fd;
_Noreturn void fail(const char *step, const char *path);
/* Field 22 of /proc/PID/stat, 0 when there is no such process. With the pid it names a process for all time. */
uint64_t start_time(pid_t pid);
/* The same, but 0 for a process in one of these states (letters of proc(5)). */
uint64_t start_time_unless(pid_t pid, const char *states);
/* Opens the process that has this pid and start time, or -1 with ESRCH when it is another one by now. */
int open_process(pid_t pid, uint64_t started);
/* Writes the file whole: neighbour, rename. 0 or -1. */
int replace_file(int at, const char *path, const void *bytes, size_t length, int durable);
/* Writes the file whole and durably: neighbour, fsync, rename, fsync of the directory. 0 or -1. */
int write_durably(const char *path, const char *text);
/* Writes to a file that is there, as those of the kernel. 0, or -1 with errno. */
int write_text(const char *path, const char *text);
/* Creates a cgroup if it is missing and moves a process (0 = the caller) into it. 0 or -1. */
int enter_cgroup(const char *path, pid_t pid);
/* The plan's resource limits and oom_score_adj for a process, 0 for the caller. 0, or -1 with errno. */
int set_rlimits(const struct plan *plan, pid_t pid);
int set_oom_score(const struct plan *plan, pid_t pid);
long long now_ms(clockid_t clock);
/* A connection to the socket of this type (SOCK_*) at a path of any length, or -1. */
int connect_socket(const char *path, int type);
/* Brings up the loopback device of the caller's network namespace. 0 or -1. */
int loopback_up(void);
/* Steps of building a container that pods (setup.c) and the OCI command line (oci-*.c) share. They end in `fail`. */
/* The container's root. Everything resolves in it, so that no symlink of an image leads outside. */
extern int root;
int open_in_root(const char *path, int flags);
/* A static text: /proc/self/fd/N. */
const char *by_descriptor(int fd);
/* Makes the folders that lead to `path`, and returns the last one open; `name` is what is left to create in it. */
int open_parent(const char *path, const char **name);
/* Opens a place in the root, made first if it is missing: 1 a folder, 2 an empty file. */
int open_target(const char *path, uint64_t create);
void make_device(const struct record *r);
void make_symlink(const struct record *r);
/* Read-only and masked paths, and a working directory that is missing. */
void protect_paths(const struct plan *plan);
/* Binds what one descriptor is at the place of the other, which is closed. */
void bind_descriptor(int source, int place, const char *path);
void drop_bounding(uint64_t keep);
void set_capabilities(const struct record *caps);
void set_user(const struct plan *plan, const struct record *process);
void execute(char **arguments, char **environment, int probe);
/* With room for one more at its end. */
char **list_of(const struct plan *plan, uint16_t op);
/* become.c: a user of /etc/passwd, until the next call; NULL if it has none. */
const struct passwd *user_of(uid_t uid);
/* oci-init.c: host name, loopback and kernel parameters of the namespaces that the caller is in. */
void set_namespaces_up(const struct plan *plan);
/* oci-mounts.c: one mount; `source` is what was opened for it before, or -1. */
void attach(const struct record *r, int source, uint64_t propagation);
/* oci-mounts.c: the root becomes the tree's, and the host's is gone. */
void change_root(const struct plan *plan);
/* setup.c: builds the container around the caller, after the namespaces exist; ends before `become`. */
void build_root(const struct plan *plan);
/* become.c: drops to the planned user, capabilities, filter and limits, and executes. */
_Noreturn void become(const struct plan *plan, const struct record *seccomp);
/* log.c: forwards a container's output, line by line. */
struct logger;
struct logger *logger_open(const struct plan *plan);
/* Reads what is there; 0 at the end of the stream. `stream` is 1 for stdout and 2 for stderr. */
int logger_read(struct logger *logger, int fd, int stream);
/* monitor.c */
int start_sandbox(const struct plan *plan, int report);
int start_container(const struct plan *plan, int report);
int run_in_container(struct plan *plan);

#endif
