#define _GNU_SOURCE
#include "plan.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

/* Per op: fields (u = u32, q = u64, s = text, p = absolute path), how many a plan may have, and which kinds need one. */
#define IN_SANDBOX 1u
#define IN_CONTAINER 2u
#define IN_EXEC 4u
#define ANYWHERE (IN_SANDBOX | IN_CONTAINER | IN_EXEC)

static const struct shape {
  const char *fields;
  unsigned most;
  unsigned allowed, required;
} shapes[OP_END] = {
    [OP_ID] = {"s", 1, ANYWHERE, ANYWHERE},
    [OP_FILES] = {"ps", 1, IN_SANDBOX | IN_CONTAINER, IN_SANDBOX | IN_CONTAINER},
    [OP_NAMESPACES] = {"u", 1, IN_SANDBOX | IN_CONTAINER, IN_SANDBOX | IN_CONTAINER},
    [OP_JOIN] = {"uqu", 1, IN_CONTAINER | IN_EXEC, IN_EXEC},
    [OP_MONITOR_CGROUP] = {"p", 1, IN_SANDBOX | IN_CONTAINER, 0},
    [OP_CGROUP] = {"p", 1, IN_CONTAINER | IN_EXEC, 0},
    [OP_LOG] = {"upu", 1, IN_CONTAINER, IN_CONTAINER},
    [OP_LOG_FIELD] = {"s", 32, IN_CONTAINER, 0},
    [OP_ROOT_OVERLAY] = {"ps", 1, IN_CONTAINER, 0},
    [OP_ROOT_BIND] = {"pp", 1, IN_CONTAINER, 0},
    [OP_MOUNT] = {"spsusu", 256, IN_CONTAINER, 0},
    [OP_MASK] = {"p", 64, IN_CONTAINER, 0},
    [OP_READONLY] = {"p", 64, IN_CONTAINER, 0},
    [OP_DEVICE] = {"puuuuu", 64, IN_CONTAINER, 0},
    [OP_SYMLINK] = {"sp", 64, IN_CONTAINER, 0},
    [OP_HOSTNAME] = {"s", 1, IN_SANDBOX | IN_CONTAINER, 0},
    [OP_LOOPBACK] = {"", 1, IN_SANDBOX | IN_CONTAINER, 0},
    [OP_RLIMIT] = {"uqq", 16, IN_CONTAINER | IN_EXEC, 0},
    [OP_CAPABILITIES] = {"qqqqq", 1, IN_CONTAINER | IN_EXEC, IN_CONTAINER | IN_EXEC},
    [OP_PROCESS] = {"uuuuu", 1, IN_CONTAINER | IN_EXEC, IN_CONTAINER | IN_EXEC},
    [OP_GROUP] = {"u", 64, IN_CONTAINER | IN_EXEC, 0},
    [OP_CWD] = {"p", 1, IN_CONTAINER | IN_EXEC, IN_CONTAINER | IN_EXEC},
    [OP_ARGUMENT] = {"s", 1024, IN_CONTAINER | IN_EXEC, IN_CONTAINER | IN_EXEC},
    [OP_ENVIRONMENT] = {"s", 2048, IN_CONTAINER | IN_EXEC, 0},
};

static const uint32_t namespace_flags =
    CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP;
static const uint32_t mount_flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_STRICTATIME |
                                    MS_RELATIME | MS_BIND | MS_REC;

struct cursor {
  const unsigned char *at, *end;
};

static int take_number(struct cursor *c, size_t width, uint64_t *value) {
  if ((size_t)(c->end - c->at) < width) return 0;
  *value = 0;
  for (size_t i = 0; i < width; i++) *value |= (uint64_t)c->at[i] << (8 * i);
  c->at += width;
  return 1;
}

static int take_text(struct cursor *c, const char **text) {
  uint64_t length;
  if (!take_number(c, 4, &length) || length > PLAN_TEXT_MAX) return 0;
  if ((uint64_t)(c->end - c->at) < length + 1) return 0;
  if (memchr(c->at, 0, length) != NULL || c->at[length] != 0) return 0;
  *text = (const char *)c->at;
  c->at += length + 1;
  return 1;
}

/* What a single record must satisfy beyond its fields being well formed. */
static const char *check_record(const struct record *r) {
  const struct field *f = r->f;
  switch (r->op) {
    case OP_ID:
      return *f[0].text ? NULL : "the id is empty";
    case OP_FILES:
      return f[1].text[0] == 0 || f[1].text[0] == '/' ? NULL : "the exit file is not an absolute path";
    case OP_NAMESPACES:
      return (f[0].number & ~(uint64_t)namespace_flags) == 0 ? NULL : "unknown namespaces";
    case OP_JOIN:
      if (f[0].number == 0 || f[0].number > 0x7fffffff) return "bad pid to join";
      return f[2].number != 0 && (f[2].number & ~(uint64_t)namespace_flags) == 0 ? NULL : "unknown namespaces to join";
    case OP_LOG:
      return f[0].number <= 1 && f[2].number >= 4096 ? NULL : "bad log settings";
    case OP_LOG_FIELD:
    case OP_ENVIRONMENT:
      return strchr(f[0].text, '=') > f[0].text && strchr(f[0].text, '=') != NULL ? NULL : "a variable without a name";
    case OP_MOUNT:
      if ((f[3].number & ~(uint64_t)mount_flags) != 0) return "unknown mount flags";
      return f[5].number <= 2 ? NULL : "bad way to create a mount point";
    case OP_DEVICE: {
      uint64_t type = f[1].number & S_IFMT;
      if ((f[1].number & ~(uint64_t)(S_IFMT | 0777)) != 0) return "bad device mode";
      return type == S_IFCHR || type == S_IFBLK || type == S_IFIFO ? NULL : "bad device type";
    }
    case OP_HOSTNAME:
      return *f[0].text && strlen(f[0].text) <= 64 ? NULL : "bad host name";
    case OP_RLIMIT:
      return f[0].number < 16 && f[1].number <= f[2].number ? NULL : "bad resource limit";
    case OP_PROCESS:
      if (f[0].number >= 0xffffffff || f[1].number >= 0xffffffff) return "bad user or group";
      if (f[2].number > 0777 || (f[3].number & ~(uint64_t)PROCESS_FLAGS) != 0) return "bad umask or process flags";
      return f[4].number <= 2000 ? NULL : "bad oom_score_adj";
    case OP_GROUP:
      return f[0].number < 0xffffffff ? NULL : "bad group";
    default:
      return NULL;
  }
}

static const char *parse_record(struct record *r, struct cursor *c) {
  uint64_t op, zero, length;
  if (!take_number(c, 2, &op) || !take_number(c, 2, &zero) || !take_number(c, 4, &length)) return "a record is cut off";
  if (op == 0 || op >= OP_END) return "unknown operation";
  if (zero != 0) return "reserved bytes of a record are set";
  if ((uint64_t)(c->end - c->at) < length) return "a record is longer than the plan";
  struct cursor body = {c->at, c->at + length};
  c->at += length;
  r->op = (uint16_t)op;
  const char *fields = shapes[op].fields;
  for (size_t i = 0; fields[i] != 0; i++) {
    int good = fields[i] == 'u'   ? take_number(&body, 4, &r->f[i].number)
               : fields[i] == 'q' ? take_number(&body, 8, &r->f[i].number)
                                  : take_text(&body, &r->f[i].text);
    if (!good) return "a field is malformed";
    if (fields[i] == 'p' && r->f[i].text[0] != '/') return "a path is not absolute";
  }
  if (body.at != body.end) return "a record has bytes left over";
  return check_record(r);
}

const char *plan_parse(struct plan *plan, const unsigned char *bytes, size_t length) {
  struct cursor c = {bytes, bytes + length};
  uint64_t version = 0, kind = 0, total = 0, count = 0, zero = 0;
  if (length < 24 || length > PLAN_BYTES_MAX) return "not a plan: bad length";
  if (memcmp(bytes, PLAN_MAGIC, 8) != 0) return "not a plan: bad magic";
  c.at += 8;
  take_number(&c, 2, &version);
  take_number(&c, 2, &kind);
  take_number(&c, 4, &total);
  take_number(&c, 4, &count);
  take_number(&c, 4, &zero);
  if (version != PLAN_VERSION) return "unknown plan version";
  if (kind < PLAN_SANDBOX || kind > PLAN_EXEC) return "unknown plan kind";
  if (total != length || zero != 0) return "the header does not match the plan";
  if (count == 0 || count > PLAN_RECORDS_MAX) return "bad number of records";

  struct record *records = calloc(count, sizeof *records);
  if (records == NULL) return "out of memory";
  unsigned seen[OP_END] = {0}, here = 1u << (kind - 1);
  const char *problem = NULL;
  for (size_t i = 0; i < count && problem == NULL; i++) {
    problem = parse_record(&records[i], &c);
    if (problem == NULL && (shapes[records[i].op].allowed & here) == 0) problem = "operation not allowed in this kind";
    if (problem == NULL && ++seen[records[i].op] > shapes[records[i].op].most) problem = "too many records of one kind";
  }
  if (problem == NULL && c.at != c.end) problem = "bytes after the last record";
  for (size_t op = 1; op < OP_END && problem == NULL; op++) {
    if ((shapes[op].required & here) != 0 && seen[op] == 0) problem = "a required record is missing";
  }
  if (problem == NULL && kind == PLAN_CONTAINER && seen[OP_ROOT_OVERLAY] + seen[OP_ROOT_BIND] != 1)
    problem = "a container needs exactly one root";
  if (problem != NULL) {
    free(records);
    return problem;
  }
  plan->kind = (enum plan_kind)kind;
  plan->records = records;
  plan->count = count;
  return NULL;
}

const struct record *plan_next(const struct plan *plan, uint16_t op, size_t *at) {
  while (*at < plan->count) {
    const struct record *r = &plan->records[(*at)++];
    if (r->op == op) return r;
  }
  return NULL;
}

const struct record *plan_find(const struct plan *plan, uint16_t op) {
  size_t at = 0;
  return plan_next(plan, op, &at);
}

size_t plan_count(const struct plan *plan, uint16_t op) {
  size_t at = 0, count = 0;
  while (plan_next(plan, op, &at) != NULL) count++;
  return count;
}
