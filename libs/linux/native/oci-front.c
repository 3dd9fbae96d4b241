/*
 * kiln-oci: the OCI runtime command line. Commands on a container that exists are done here; what needs policy
 * (create, run, exec, update) is planned in TypeScript and executed here; what only prints is the planner's own process.
 */
#include "system.h"
#include "oci.h"

static struct front self;

void write_json(FILE *to, const char *text) {
  for (; *text; text++) {
    if (*text == '"' || *text == '\\' || (unsigned char)*text < 32) fprintf(to, "\\u%04x", (unsigned char)*text);
    else fputc(*text, to);
  }
}

int remark(const char *level, const char *format, ...) {
  char text[4096], when[40];
  time_t now = time(NULL);
  struct tm utc;
  va_list arguments;
  if (!self.debug && strcmp(level, "debug") == 0) return 1;
  FILE *to = self.log ? fopen(self.log, "ae") : NULL;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  int error = strcmp(level, "error") == 0;
  if (error || to == NULL) dprintf(2, "kiln-oci: %s%s%s\n", error ? "" : level, error ? "" : ": ", text);
  if (to == NULL) return 1;
  gmtime_r(&now, &utc);
  strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
  fprintf(to, self.log_json ? "{\"time\":\"%s\",\"level\":\"%s\",\"msg\":\"" : "time=\"%s\" level=%s msg=\"", when, level);
  write_json(to, text);
  fputs(self.log_json ? "\"}\n" : "\"\n", to);
  return fclose(to), 1;
}

int complain_of(const struct failure *failure) {
  return complain("%s%s%s: %s", failure->step, *failure->path ? " " : "", failure->path, strerror(failure->error));
}

char *read_whole(int at, const char *path, size_t most, size_t *length) {
  int fd = strcmp(path, "-") == 0 ? dup(0) : openat(at, path, O_RDONLY | O_CLOEXEC);
  char *bytes = fd < 0 ? NULL : malloc(most + 1);
  ssize_t got = 0;
  *length = 0;
  while (bytes != NULL && *length < most && (got = read(fd, bytes + *length, most - *length)) > 0) *length += (size_t)got;
  int error = got < 0 ? errno : *length == most ? EFBIG : 0;
  if (fd >= 0) close(fd);
  if (bytes != NULL && error == 0) return bytes[*length] = 0, bytes;
  free(bytes);
  if (error != 0) errno = error;
  return NULL;
}

static int is_option(const char *argument, const char *name, char short_name, const char **value) {
  size_t length = strlen(name);
  const char *text = argument + 1;
  if (argument[0] != '-' || argument[1] == 0) return 0;
  if (short_name != 0 && text[0] == short_name && (text[1] == 0 || text[1] == '=')) {
    *value = text[1] == '=' ? text + 2 : NULL;
    return 1;
  }
  if (*text == '-') text++;
  if (strncmp(text, name, length) != 0 || (text[length] != 0 && text[length] != '=')) return 0;
  *value = text[length] == '=' ? text + length + 1 : NULL;
  return 1;
}

const char *option_value(const struct front *front, const char *name, char short_name) {
  const char *value = NULL, *found = NULL;
  for (char **at = front->arguments; *at != NULL && at != front->rest; at++) {
    if (is_option(*at, name, short_name, &value)) found = value ? value : at[1] && at + 1 != front->rest ? at[1] : "";
  }
  return found;
}

int option_given(const struct front *front, const char *name, char short_name) {
  const char *value = option_value(front, name, short_name);
  return value != NULL && strcmp(value, "false") != 0;
}

char **positional(struct front *front, const char *const *valued) {
  char **at = front->arguments;
  for (; *at != NULL && **at == '-' && (*at)[1] != 0 && strcmp(*at, "--") != 0; at++) {
    const char *value = "";
    for (const char *const *name = valued; *name != NULL; name++) {
      if (**name == '*') value = strchr(*at, '=');
      if (**name == '*' || is_option(*at, *name, (*name)[1] == 0 ? **name : 0, &value)) break;
    }
    if (value == NULL && at[1] != NULL) at++;
  }
  front->rest = strcmp(front->command, "update") == 0 ? NULL : at; /* its options may come after the id, too */
  return *at != NULL && strcmp(*at, "--") == 0 ? at + 1 : at;
}

static const struct {
  const char *name;
  int (*run)(struct front *);
  const char *what;
} commands[] = {
    {"create", command_create, "create a container from a bundle: [--bundle DIR] [--config FILE] [--console-socket PATH] [--pid-file PATH] ID"},
    {"start", command_start, "start the program of a created container: ID"},
    {"run", command_create, "create, start, wait and delete: [--bundle DIR] [--detach] [--keep] ID"},
    {"state", command_state, "print a container's state as JSON: ID"},
    {"kill", command_kill, "signal a container's first process, or with --all every one: [--all] ID [SIGNAL]"},
    {"delete", command_delete, "delete a stopped container, with --force any: [--force] ID"},
    {"exec", command_exec, "run a further program in a container: [--tty] [--user UID[:GID]] [--cwd DIR] [--env K=V] [--process FILE] ID CMD..."},
    {"ps", command_ps, "list a container's processes: [--format json|table] ID"},
    {"list", command_list, "list containers: [--format json|table] [--quiet]"},
    {"pause", command_pause, "freeze a container: ID"},
    {"resume", command_pause, "thaw a container: ID"},
    {"update", command_update, "change a container's limits: [--resources FILE|-] [--memory BYTES] [--pids-limit N] ... ID"},
    {"events", NULL, "print a container's statistics: [--stats] [--interval DURATION] ID"},
    {"features", NULL, "print what this runtime supports as JSON"},
    {"planner", NULL, "serve the planner, so that commands need not start one: [--socket PATH]"},
    {"spec", NULL, "write a default config.json: [--bundle DIR] [--rootless]"},
};

static int usage(void) {
  puts("kiln-oci: run OCI bundles\n\nusage: kiln-oci [--root DIR] [--log FILE] [--log-format text|json] [--systemd-cgroup]\n"
       "                [--cgroup-manager cgroupfs|systemd] [--debug] [--version] COMMAND ...\n");
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) printf("  %-9s %s\n", commands[i].name, commands[i].what);
  return 0;
}

static int parse_globals(int argc, char **argv, const char **rootless) {
  static const char *const valued[] = {"root", "log", "log-format", "cgroup-manager", "rootless", "criu"};
  int at = 1;
  for (; at < argc && argv[at][0] == '-'; at++) {
    const char *value = NULL, *name = argv[at];
    if (is_option(name, "version", 'v', &value)) return printf("kiln-oci version 0.1.0\nspec: 1.2.0\n") < 0 ? -2 : -1;
    if (is_option(name, "help", 'h', &value)) return usage() == 0 ? -1 : -2;
    int debug = is_option(name, "debug", 0, &value);
    if (debug || is_option(name, "systemd-cgroup", 0, &value)) {
      *(debug ? &self.debug : &self.systemd) = value == NULL || strcmp(value, "false") != 0;
      continue;
    }
    size_t which = 0;
    for (; which < 6 && !is_option(name, valued[which], 0, &value); which++) continue;
    if (which == 6) return complain("unknown flag %s", name), -2;
    if (which == 5) return complain("%s: there is no CRIU here", name), -2;
    if (value == NULL && (value = argv[++at]) == NULL) return complain("%s needs a value", name), -2;
    /* The log first, so that what is wrong with the others is told there. */
    if (which < 2 && *value) *(which == 0 ? &self.root : &self.log) = value;
    else if (which == 2 && (strcmp(value, "json") == 0 || strcmp(value, "text") == 0)) self.log_json = *value == 'j';
    else if (which == 3 && (strcmp(value, "systemd") == 0 || strcmp(value, "cgroupfs") == 0)) self.systemd = *value == 's';
    else if (which == 4 && (!strcmp(value, "auto") || !strcmp(value, "true") || !strcmp(value, "false"))) *rootless = value;
    else if (which != 1) return complain("--%s: unknown value \"%s\"", valued[which], value), -2;
  }
  return at;
}

/* Where state lies, and whether we are rootless: not root, or root only of a user namespace that has a part of the ids. */
static int choose_root(const char *rootless) {
  static char path[PATH_MAX], here[PATH_MAX];
  struct stat run;
  size_t length;
  char *map = read_whole(AT_FDCWD, "/proc/self/uid_map", 4096, &length);
  unsigned first = 1, outside = 0, count = 0;
  if (map != NULL) sscanf(map, "%u %u %u", &first, &outside, &count);
  free(map);
  self.rootless = *rootless == 'a' ? geteuid() != 0 || first != 0 || outside != 0 || count != UINT_MAX : *rootless == 't';
  const char *folder = self.rootless ? getenv("XDG_RUNTIME_DIR") : "/run", *name = self.root ? self.root : "kiln-oci";
  if (self.root != NULL && *self.root == '/') return 0;
  if (self.root != NULL) {
    folder = getcwd(here, sizeof here);
  } else if (folder == NULL || *folder != '/') {
    snprintf(here, sizeof here, geteuid() == 0 ? "/run" : "/run/user/%u", (unsigned)geteuid());
    folder = stat(here, &run) == 0 && run.st_uid == geteuid() ? here : NULL;
  }
  if (folder == NULL) return complain("there is no folder for the state: set XDG_RUNTIME_DIR or --root");
  if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path) return complain("--root is too long");
  self.root = path;
  return 0;
}

int oci_main(int argc, char **argv) {
  const char *rootless = "auto";
  self.home = getenv("KILN_OCI_HOME");
  int at = parse_globals(argc, argv, &rootless);
  if (at < 0) return at == -1 ? 0 : 1;
  if (at >= argc) return usage(), 1;
  if (choose_root(rootless) != 0) return 1;
  self.command = argv[at];
  self.arguments = argv + at + 1;
  if (strcmp(self.command, "help") == 0) return usage();
  if (strcmp(self.command, "checkpoint") == 0 || strcmp(self.command, "restore") == 0)
    return complain("%s is not supported: there is no CRIU here", self.command);
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
    if (strcmp(self.command, commands[i].name) != 0) continue;
    if (*self.arguments != NULL && (strcmp(*self.arguments, "--help") == 0 || strcmp(*self.arguments, "-h") == 0))
      return printf("usage: kiln-oci %s\n  %s\n", commands[i].name, commands[i].what) < 0;
    return commands[i].run ? commands[i].run(&self) : run_planner(&self);
  }
  return complain("unknown command \"%s\"; see kiln-oci --help", self.command);
}
