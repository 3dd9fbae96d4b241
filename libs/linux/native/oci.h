/* What the parts of kiln-oci share: the front (this command), the container's folder, and the steps of its making. */
#ifndef KILN_OCI_H
#define KILN_OCI_H

#include "plan.h"
#include "process.h"
/* The global flags, and the command with its own arguments. */
struct front {
  const char *root, *log;
  int log_json, debug, systemd, rootless;
  const char *home; /* where this program lies: Node and the planner are found from there */
  const char *command;
  char **arguments; /* after the command, ended by NULL */
  char **rest;      /* the first that is no option, once `positional` looked; NULL where options may be anywhere */
};
/* A container's folder below --root: `plan` (what was executed), `state` (which process), `start` (a socket). */
struct container {
  const char *id;
  int folder; /* open and, except for readers, locked by flock */
  unsigned char *bytes;
  struct plan plan;
  int planned; /* the plan could be read */
  pid_t pid;   /* 0: no process was made yet */
  uint64_t started_at;
  long long created_ms;
  int running; /* `start` was done */
};
enum status { STATUS_CREATING, STATUS_CREATED, STATUS_RUNNING, STATUS_PAUSED, STATUS_STOPPED };
extern const char *const status_names[];
/* oci-front.c */
int oci_main(int argc, char **argv);
/* Says what went wrong on stderr and in --log; returns 1. */
#define complain(...) remark("error", __VA_ARGS__)
int complain_of(const struct failure *failure);
/* A "warning" or, with --debug, a "debug": in the log if there is one, else on stderr. */
int remark(const char *level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The inside of a JSON string. */
void write_json(FILE *to, const char *text);
char *read_whole(int at, const char *path, size_t most, size_t *length);
/* The value of `--name VALUE`, `--name=VALUE` or `-short VALUE`, or NULL. */
const char *option_value(const struct front *front, const char *name, char short_name);
int option_given(const struct front *front, const char *name, char short_name);
/* The first argument that is neither an option nor the value of one of `valued` (letters or names, NULL ends). */
char **positional(struct front *front, const char *const *valued);
/* Becomes the planner's own process for a command that only prints. */
int run_planner(const struct front *front);
/* oci-ask.c: has the planner, one-shot Node, answer with a plan of this kind; its bytes, or NULL after complaining. */
unsigned char *ask_plan(const struct front *front, const struct container *c, enum plan_kind kind, struct plan *plan, size_t *length);
/* oci-container.c */
int make_container(const struct front *front, const char *id, struct container *c);
int open_container(const struct front *front, const char *id, struct container *c, int lock);
int write_state(struct container *c);
enum status status_of(const struct container *c);
/* The state as the specification's JSON, allocated. */
char *state_json(const struct container *c, enum status status, pid_t pid);
void remove_folder(const struct front *front, struct container *c);
/* Kills what is left, removes cgroups, runs poststop hooks, removes the folder. */
int destroy_container(const struct front *front, struct container *c);
int wait_gone(pid_t pid, uint64_t started, int ms);
/* oci-cgroup.c. Folders of a plan; each answers 0 or -1 with errno, `*path` naming the file. */
int make_folders(const char *path, mode_t mode, int cpuset);
int make_cgroups(const struct plan *plan, const char **path);
/* Moves the caller, which has one thread; it may `fail`. */
void join_cgroups(const struct plan *plan);
int write_limits(const struct plan *plan, const char **path);
int freeze_cgroup(const struct plan *plan, int frozen);
int cgroup_frozen(const struct plan *plan);
void kill_cgroup(const struct plan *plan, int number);
int remove_cgroups(const struct plan *plan);
/* Every pid of the container's cgroup and those below: calls back for each, answers how many. */
int each_process(const struct plan *plan, void (*call)(pid_t pid, void *context), void *context);
/* oci-hooks.c: runs the hooks of one kind in order. 0, or -1 after complaining; `folder` is their working directory. */
int run_hooks(const struct plan *plan, enum hook_when when, const char *state, const char *folder);
/* oci-namespaces.c: makes the container's first process. It calls `body` and never returns in it. */
struct clone_result {
  pid_t pid;
  int process; /* pidfd */
};
/* The same from a helper that enters namespaces first: those of pids and time are for its children only. */
int clone_through(void (*enter)(const void *), const void *what, uint64_t flags, void (*body)(void *), void *context,
                  struct clone_result *result);
/* By way of a process that enters namespaces first, and the cgroups where they can still be reached. */
int needs_helper(const struct plan *plan);
int clone_container(const struct plan *plan, void (*body)(void *), void *context, struct clone_result *result);
int write_id_maps(const struct plan *plan, unsigned map, pid_t pid);
/* A user namespace with the maps of one id map, as a descriptor. */
int open_id_map(const struct plan *plan, unsigned map);
/* Enters the namespaces of a process that are not the caller's already. */
void join_process(pid_t pid, uint64_t started);
/* The caller became part of a user namespace: be its root. */
void become_root_there(void);
/* oci-mounts.c */
/* In the front, for what a user namespace could not reach. NULL, or the step that failed, with errno. */
const char *open_sources(const struct plan *plan, const char **path);
void mount_everything(const struct plan *plan);
/* oci-console.c */
int open_terminal(const struct record *console, int pts, int *slave);
int send_descriptor(int to, int fd, const char *text);
int receive_descriptor(int from);
/* Copies between stdin, stdout and the container's terminal until the process ends. `sizes`: a socket with a struct winsize for each SIGWINCH, or -1. */
int relay_terminal(int master, int process, pid_t pid, int sizes);
int wait_process(int process, pid_t pid);
int exit_code(int status);
/* oci-init.c */
struct init {
  const struct plan *plan;
  struct container *container;
  int sync[2];   /* seqpacket: 0 the front's end, 1 the init's */
  int console;   /* connected socket, or -1 */
  int listener;  /* for `start`, or -1 */
};
struct message {
  uint32_t kind; /* MESSAGE_* */
  int32_t number;
  struct failure failure;
};
enum { MESSAGE_GO = 1, MESSAGE_HOOKS, MESSAGE_BUILT, MESSAGE_FAILED };
void init_container(void *init);
void init_exec(void *init);
/* The terminal's end becomes stdin, stdout and stderr and controls the session. */
void use_terminal(const struct init *init, int pts, int bind_console);
/* Waits for a message of one kind from the other side. 0, or -1 with the failure filled in. */
int expect(int socket, uint32_t kind, struct message *message);
int tell(int socket, uint32_t kind, int number);
/* The socket that the terminal's other end goes to: --console-socket, or a pair whose other end is `ours`. */
int open_console(const struct plan *plan, int *ours);
/* --pid-file and --pidfd-socket; the descriptor goes with the word that runc sends: standard or setns. */
int hand_over(const struct plan *plan, const struct clone_result *made, const char *word, struct failure *failure);
/* Limits that only the front may set. */
int limit_process(const struct plan *plan, pid_t pid, struct failure *failure);
/* oci-create.c, oci-exec.c, oci-commands.c: the commands */
int command_create(struct front *front);
int command_exec(struct front *front);
int command_update(struct front *front);
int command_state(struct front *front);
int command_start(struct front *front);
int command_kill(struct front *front);
int command_delete(struct front *front);
int command_list(struct front *front);
int command_ps(struct front *front);
int command_pause(struct front *front);
int start_container_now(struct container *c);

#endif
