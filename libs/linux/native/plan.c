#include "system.h"
#include "plan.h"

/* Per op: fields (u = u32, q = u64, s = text, p = absolute path, b = blob), how many a plan may have, and which kinds need one. */
enum { IN_SANDBOX = 1, IN_CONTAINER = 2, IN_EXEC = 4, IN_OCI = 8, IN_OCI_EXEC = 16, IN_UPDATE = 32, ANYWHERE = 63 };
#define IN_PROGRAM (IN_CONTAINER | IN_EXEC | IN_OCI | IN_OCI_EXEC)

static const struct shape {
  const char *fields;
  unsigned most;
  unsigned allowed, required;
} shapes[OP_END] = {
    [OP_ID] = {"s", 1, ANYWHERE, ANYWHERE},
    [OP_FILES] = {"ps", 1, IN_SANDBOX | IN_CONTAINER, IN_SANDBOX | IN_CONTAINER},
    [OP_NAMESPACES] = {"u", 1, IN_SANDBOX | IN_CONTAINER | IN_OCI, IN_SANDBOX | IN_CONTAINER | IN_OCI},
    [OP_JOIN] = {"uqu", 1, IN_CONTAINER | IN_EXEC, IN_EXEC},
    [OP_MONITOR_CGROUP] = {"p", 1, IN_SANDBOX | IN_CONTAINER, 0},
    [OP_CGROUP] = {"p", 1, IN_CONTAINER | IN_EXEC, 0},
    [OP_LOG] = {"upu", 1, IN_CONTAINER, IN_CONTAINER},
    [OP_LOG_FIELD] = {"s", 32, IN_CONTAINER, 0},
    [OP_ROOT_OVERLAY] = {"ps", 1, IN_CONTAINER, 0},
    [OP_ROOT_BIND] = {"pp", 1, IN_CONTAINER, 0},
    [OP_MASK] = {"p", 1024, IN_CONTAINER | IN_OCI, 0},
    [OP_READONLY] = {"p", 1024, IN_CONTAINER | IN_OCI, 0},
    [OP_DEVICE] = {"puuuuu", 1024, IN_CONTAINER | IN_OCI, 0},
    [OP_SYMLINK] = {"sp", 1024, IN_CONTAINER | IN_OCI, 0},
    [OP_HOSTNAME] = {"s", 1, IN_SANDBOX | IN_CONTAINER | IN_OCI, 0},
    [OP_LOOPBACK] = {"", 1, IN_SANDBOX | IN_CONTAINER | IN_OCI, 0},
    [OP_RLIMIT] = {"uqq", 16, IN_PROGRAM, 0},
    [OP_CAPABILITIES] = {"qqqqq", 1, IN_PROGRAM, IN_PROGRAM},
    [OP_PROCESS] = {"uuuuu", 1, IN_PROGRAM, IN_PROGRAM},
    [OP_GROUP] = {"u", 1024, IN_PROGRAM, 0},
    [OP_CWD] = {"p", 1, IN_PROGRAM, IN_PROGRAM},
    [OP_ARGUMENT] = {"s", 1024, IN_PROGRAM, IN_PROGRAM},
    [OP_ENVIRONMENT] = {"s", 4000, IN_PROGRAM, 0},
    [OP_BUNDLE] = {"p", 1, IN_OCI, IN_OCI},
    [OP_STATE] = {"s", 1, IN_OCI, IN_OCI},
    [OP_PROCESS_JSON] = {"s", 1, IN_OCI, IN_OCI},
    [OP_ROOT] = {"puu", 1, IN_OCI, IN_OCI},
    [OP_ATTACH] = {"spsuusqqqquu", 1024, IN_CONTAINER | IN_OCI, 0},
    [OP_NAMESPACE_PATH] = {"up", 8, IN_OCI, 0},
    [OP_ID_MAP] = {"uuuuu", 1024, IN_OCI, 0},
    [OP_TIME_OFFSET] = {"s", 2, IN_OCI, 0},
    [OP_SYSCTL] = {"ps", 256, IN_SANDBOX | IN_OCI, 0},
    [OP_CGROUP_FOLDER] = {"spu", 32, IN_OCI | IN_OCI_EXEC, 0},
    [OP_CGROUP_WRITE] = {"psu", 1024, IN_OCI | IN_UPDATE, 0},
    [OP_CGROUP_DEVICES] = {"pb", 1, IN_OCI | IN_UPDATE, 0},
    [OP_HOOK] = {"upu", 128, IN_OCI, 0},
    [OP_HOOK_ARGUMENT] = {"s", 1024, IN_OCI, 0},
    [OP_HOOK_ENVIRONMENT] = {"s", 1024, IN_OCI, 0},
    [OP_SECCOMP] = {"ubss", 1, IN_CONTAINER | IN_EXEC | IN_OCI, 0},
    [OP_CONSOLE] = {"suu", 1, IN_EXEC | IN_OCI | IN_OCI_EXEC, 0},
    [OP_PID_FILE] = {"p", 1, IN_OCI | IN_OCI_EXEC, 0},
    [OP_OPTIONS] = {"uu", 1, IN_OCI | IN_OCI_EXEC, IN_OCI | IN_OCI_EXEC},
    [OP_DOMAINNAME] = {"s", 1, IN_OCI, 0},
    [OP_LABELS] = {"ss", 1, IN_OCI | IN_OCI_EXEC, 0},
    [OP_SCHEDULER] = {"uuuqqqq", 1, IN_OCI | IN_OCI_EXEC, 0},
    [OP_IO_PRIORITY] = {"u", 1, IN_OCI | IN_OCI_EXEC, 0},
    [OP_PERSONALITY] = {"u", 1, IN_OCI | IN_OCI_EXEC, 0},
    [OP_PIDFD_SOCKET] = {"p", 1, IN_OCI | IN_OCI_EXEC, 0},
    [OP_CPU_AFFINITY] = {"ub", 2, IN_OCI_EXEC, 0},
};

static const uint32_t namespace_flags =
    CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP | CLONE_NEWUSER | CLONE_NEWTIME;
static const uint32_t attach_flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_SYNCHRONOUS | MS_MANDLOCK |
                                     MS_DIRSYNC | MS_NOATIME | MS_NODIRATIME | MS_STRICTATIME | MS_RELATIME |
                                     MS_SILENT | MS_I_VERSION | MS_LAZYTIME | MS_NOSYMFOLLOW;
static const uint32_t propagation_flags = MS_SHARED | MS_SLAVE | MS_PRIVATE | MS_UNBINDABLE | MS_REC;

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

static int take_blob(struct cursor *c, struct field *f) {
  if (!take_number(c, 4, &f->number) || (uint64_t)(c->end - c->at) < f->number) return 0;
  f->text = (const char *)c->at;
  c->at += f->number;
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
    case OP_ATTACH:
      if ((f[3].number & ~(uint64_t)ATTACH_FLAGS) != 0) return "unknown way to attach";
      if ((f[4].number & ~(uint64_t)attach_flags) != 0) return "unknown mount flags";
      return (f[10].number & ~(uint64_t)propagation_flags) == 0 ? NULL : "unknown propagation";
    case OP_DEVICE: {
      uint64_t type = f[1].number & S_IFMT;
      if ((f[1].number & ~(uint64_t)(S_IFMT | 07777)) != 0) return "bad device mode";
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
    case OP_ROOT:
      return ((f[1].number | f[2].number) & ~(uint64_t)propagation_flags) == 0 ? NULL : "unknown propagation";
    case OP_NAMESPACE_PATH:
      return (f[0].number & (f[0].number - 1)) == 0 && (f[0].number & namespace_flags) ? NULL : "bad namespace to join";
    case OP_ID_MAP:
      return f[1].number <= 1 && f[4].number > 0 ? NULL : "bad id mapping";
    case OP_SYSCTL:
      return strstr(f[0].text, "..") == NULL ? NULL : "bad sysctl";
    case OP_HOOK:
      return f[0].number <= HOOK_POSTSTOP ? NULL : "unknown kind of hook";
    case OP_SECCOMP:
      return f[1].number > 0 && f[1].number % 8 == 0 && f[1].number <= 4096 * 8 ? NULL : "bad seccomp filter";
    case OP_CGROUP_DEVICES:
      return f[1].number > 0 && f[1].number % 8 == 0 ? NULL : "bad device filter";
    case OP_OPTIONS:
      return (f[0].number & ~(uint64_t)OPTION_FLAGS) == 0 && f[1].number <= 1024 ? NULL : "bad options";
    case OP_GROUP:
      return f[0].number < 0xffffffff ? NULL : "bad group";
    default:
      return NULL;
  }
}

static const char *parse_record(struct record *r, struct cursor *c) {
  uint64_t op, zero, length;
  if (!take_number(c, 2, &op) || !take_number(c, 2, &zero) || !take_number(c, 4, &length)) return "a record is cut off";
  if (op == 0 || op >= OP_END || shapes[op].fields == NULL) return "unknown operation";
  if (zero != 0) return "reserved bytes of a record are set";
  if ((uint64_t)(c->end - c->at) < length) return "a record is longer than the plan";
  struct cursor body = {c->at, c->at + length};
  c->at += length;
  r->op = (uint16_t)op;
  const char *fields = shapes[op].fields;
  for (size_t i = 0; fields[i] != 0; i++) {
    int good = fields[i] == 'u'   ? take_number(&body, 4, &r->f[i].number)
               : fields[i] == 'q' ? take_number(&body, 8, &r->f[i].number)
               : fields[i] == 'b' ? take_blob(&body, &r->f[i])
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
  if (kind < PLAN_SANDBOX || kind > PLAN_OCI_UPDATE) return "unknown plan kind";
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
