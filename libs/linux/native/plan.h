/*
 * The plan: what kiln-init executes. TypeScript (libs/linux/src/plan.ts) decides and encodes, this side only
 * parses strictly and obeys. Layout, little endian:
 *
 *   header   8 bytes "KILNPLAN", u16 version, u16 kind, u32 length of all, u32 number of records, u32 zero
 *   record   u16 op, u16 zero, u32 length of the body, body
 *   field    u32 | u64 | string: u32 length, bytes without NUL, one NUL
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
#define PLAN_FIELDS_MAX 7

enum plan_kind { PLAN_SANDBOX = 1, PLAN_CONTAINER = 2, PLAN_EXEC = 3 };

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
  OP_MOUNT,           /* text source, path target, text type, u32 flags, text data, u32 create 0/1 dir/2 file */
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
  OP_END
};

#define PROCESS_NO_NEW_PRIVILEGES 1u
#define PROCESS_READONLY_ROOT 2u
#define PROCESS_FLAGS 3u

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
