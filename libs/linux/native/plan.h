/*
 * The plan: what kiln-init executes. TypeScript (libs/linux/src/plan.ts) decides and encodes, this side only
 * parses strictly and obeys. Layout, little endian:
 *
 *   header   8 bytes "KILNPLAN", u16 version, u16 kind, u32 length of all, u32 number of records, u32 zero
 *   record   u16 op, u16 zero, u32 length of the body, body
 *   field    u32 | u64 | string: u32 length, bytes without NUL, one NUL | blob: u32 length, bytes
 */
#ifndef KILN_PLAN_H
#define KILN_PLAN_H

#include <stddef.h>
#include <stdint.h>

#define PLAN_MAGIC "KILNPLAN"
#define PLAN_VERSION 1
#define PLAN_BYTES_MAX (1u << 20)
#define PLAN_RECORDS_MAX 4096u
#define PLAN_TEXT_MAX (128u << 10)
#define PLAN_FIELDS_MAX 12

enum plan_kind { PLAN_SANDBOX = 1, PLAN_CONTAINER, PLAN_EXEC, PLAN_OCI_CREATE, PLAN_OCI_EXEC, PLAN_OCI_UPDATE };

/* The numbers are the format: never renumber, only append. The fields are listed beside each. */
enum plan_op {
  OP_ID = 1,          /* text name */
  OP_FILES,           /* path running, text exit (empty for a sandbox) */
  OP_NAMESPACES,      /* u32 CLONE_NEW* to create */
  OP_JOIN,            /* u32 pid, u64 start time, u32 CLONE_NEW* to enter */
  OP_MONITOR_CGROUP,  /* path for the supervising process itself */
  OP_CGROUP,          /* path for the container */
  OP_LOG,             /* u32 1 = journal if there is one, path of the file, u32 bytes a file */
  OP_LOG_FIELD,       /* text NAME=value, added to every journal entry */
  OP_ROOT_OVERLAY,    /* path of the mount point, text options */
  OP_ROOT_BIND,       /* path of the mount point, path of the tree */
  OP_RETIRED,         /* was a mount; OP_ATTACH is in its place */
  OP_MASK,            /* path hidden */
  OP_READONLY,        /* path made read-only */
  OP_DEVICE,          /* path, u32 mode with type, u32 major, u32 minor, u32 uid, u32 gid */
  OP_SYMLINK,         /* text target, path of the link */
  OP_HOSTNAME,        /* text */
  OP_LOOPBACK,        /* no fields: bring lo up */
  OP_RLIMIT,          /* u32 resource, u64 soft, u64 hard */
  OP_CAPABILITIES,    /* u64 bounding, effective, permitted, inheritable, ambient */
  OP_PROCESS,         /* u32 uid, u32 gid, u32 umask, u32 flags PROCESS_*, u32 oom_score_adj + 1000 */
  OP_GROUP,           /* u32 supplementary gid */
  OP_CWD,             /* path */
  OP_ARGUMENT,        /* text */
  OP_ENVIRONMENT,     /* text NAME=value */
  /* From here on: the OCI command line (kiln-oci). */
  OP_BUNDLE,          /* path */
  OP_STATE,           /* text: members of the state's JSON object that never change */
  OP_PROCESS_JSON,    /* text: what a later `exec` takes over, for the planner */
  OP_ROOT,            /* path, u32 MS_* propagation of the host's tree as copied, u32 MS_* of the finished root or 0 */
  OP_ATTACH,          /* text source, path target, text type, u32 ATTACH_*, u32 MS_*, text data, u64 MOUNT_ATTR_* set,
                         u64 cleared, u64 set recursively, u64 cleared recursively, u32 MS_* propagation, u32 id map */
  OP_NAMESPACE_PATH,  /* u32 CLONE_NEW*, path */
  OP_ID_MAP,          /* u32 map (0: the container's), u32 0 uid or 1 gid, u32 inside, u32 outside, u32 size */
  OP_TIME_OFFSET,     /* text line for timens_offsets */
  OP_SYSCTL,          /* path below /proc/sys, text value */
  OP_CGROUP_FOLDER,   /* text controllers, path, u32 FOLDER_* */
  OP_CGROUP_WRITE,    /* path, text value, u32 1 = may fail */
  OP_CGROUP_DEVICES,  /* path, blob: eBPF program for devices */
  OP_HOOK,            /* u32 HOOK_*, path, u32 timeout in seconds or 0 */
  OP_HOOK_ARGUMENT,   /* text, of the hook before */
  OP_HOOK_ENVIRONMENT,/* text, of the hook before */
  OP_SECCOMP,         /* u32 flags of seccomp(2), blob: BPF program, text listener socket, text listener metadata */
  OP_CONSOLE,         /* text socket (empty: the caller's terminal), u32 rows, u32 columns */
  OP_PID_FILE,        /* path */
  OP_OPTIONS,         /* u32 OPTION_*, u32 descriptors kept after stderr */
  OP_DOMAINNAME,      /* text */
  OP_LABELS,          /* text AppArmor profile, text SELinux label */
  OP_SCHEDULER,       /* u32 policy, u32 nice + 20, u32 priority, u64 flags, u64 runtime, u64 deadline, u64 period */
  OP_IO_PRIORITY,     /* u32 value of ioprio_set(2) */
  OP_PERSONALITY,     /* u32 */
  OP_PIDFD_SOCKET,    /* path of the socket that gets a descriptor of the process */
  OP_CPU_AFFINITY,    /* u32 0 before or 1 after the process enters its cgroup, blob: CPU mask */
  OP_END
};

/* NEEDS_PLACE: the target must be there already. PLAIN_SOURCE: no symlink on the way to what is bound. */
enum { ATTACH_BIND = 1, ATTACH_RECURSIVE = 2, ATTACH_COPY_UP = 4, ATTACH_NO_SYMLINKS = 8, ATTACH_NEEDS_PLACE = 16,
       ATTACH_MAP_RECURSIVE = 32, ATTACH_REMOUNT = 64, ATTACH_PLAIN_SOURCE = 128, ATTACH_FLAGS = 255 };
enum hook_when { HOOK_PRESTART, HOOK_CREATE_RUNTIME, HOOK_CREATE_CONTAINER, HOOK_START_CONTAINER, HOOK_POSTSTART, HOOK_POSTSTOP };

enum { OPTION_DETACH = 1, OPTION_NO_KEYRING = 2, OPTION_NO_PIVOT = 4, OPTION_RUN = 8, OPTION_KEEP = 16, OPTION_FLAGS = 31 };
enum { PROCESS_NO_NEW_PRIVILEGES = 1, PROCESS_READONLY_ROOT = 2, PROCESS_KEEP_OOM_SCORE = 4, PROCESS_FLAGS = 7 };
/* A cpuset takes over its parent's cpus and mems; rootless, the caller may not be allowed to make or enter a group. */
enum { FOLDER_CPUSET = 1, FOLDER_MAY_FAIL = 2 };

struct field {
  uint64_t number;
  const char *text;
};

struct record {
  uint16_t op;
  struct field f[PLAN_FIELDS_MAX];
};

struct plan {
  enum plan_kind kind;
  const struct record *records;
  size_t count;
};

/* Parses `bytes`, which must outlive the plan. Returns NULL or what is wrong; on success `plan->records` is allocated. */
const char *plan_parse(struct plan *plan, const unsigned char *bytes, size_t length);
/* The one record with this op, or NULL. */
const struct record *plan_find(const struct plan *plan, uint16_t op);
/* Walks records with this op: start with *at = 0; NULL at the end. */
const struct record *plan_next(const struct plan *plan, uint16_t op, size_t *at);
/* How many records have this op. */
size_t plan_count(const struct plan *plan, uint16_t op);

#endif
