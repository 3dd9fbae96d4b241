/*
 * A container's output, line by line: to journald in its native protocol (one datagram an entry) with the plan's
 * fields, else to a bounded file in the CRI format: `TIME stdout|stderr F|P TEXT`, rotated once to `.1`.
 */
#include "system.h"
#include "process.h"

#define LINE_MAX_BYTES 8192
#define JOURNAL_SOCKET "/run/systemd/journal/socket"

struct stream {
  char text[LINE_MAX_BYTES];
  size_t length;
};

struct logger {
  struct stream streams[2];
  int journal;
  char *fields; /* NAME=value lines */
  size_t fields_length;
  const char *path;
  size_t file_max;
  int file;
};

static int connect_journal(void) {
  struct timeval patience = {.tv_sec = 5};
  int fd = connect_socket(JOURNAL_SOCKET, SOCK_DGRAM);
  if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  return fd;
}

struct logger *logger_open(const struct plan *plan) {
  struct logger *l = calloc(1, sizeof *l);
  const struct record *log = plan_find(plan, OP_LOG), *r;
  if (l == NULL) return NULL;
  l->path = log->f[1].text;
  l->file_max = log->f[2].number;
  l->file = -1;
  l->journal = log->f[0].number == 1 ? connect_journal() : -1;
  size_t at = 0, capacity = 1;
  while ((r = plan_next(plan, OP_LOG_FIELD, &at)) != NULL) capacity += strlen(r->f[0].text) + 1;
  if ((l->fields = malloc(capacity)) == NULL) return NULL;
  for (at = 0; (r = plan_next(plan, OP_LOG_FIELD, &at)) != NULL;) {
    if (strchr(r->f[0].text, '\n') != NULL) continue;
    l->fields_length += (size_t)sprintf(l->fields + l->fields_length, "%s\n", r->f[0].text);
  }
  return l;
}

static int send_to_journal(struct logger *l, int stream, const char *text, size_t length, int partial) {
  char head[128], size[8];
  int head_length = snprintf(head, sizeof head, "PRIORITY=%d\nKILN_STREAM=%s\n%sMESSAGE\n", stream == 2 ? 3 : 6,
                             stream == 2 ? "stderr" : "stdout", partial ? "CONTAINER_PARTIAL_MESSAGE=true\n" : "");
  for (int i = 0; i < 8; i++) size[i] = (char)((uint64_t)length >> (8 * i));
  struct iovec parts[] = {{l->fields, l->fields_length},
                          {head, (size_t)head_length},
                          {size, sizeof size},
                          {(char *)(uintptr_t)text, length},
                          {(char *)(uintptr_t) "\n", 1}};
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = 5};
  for (int attempt = 0; attempt < 2; attempt++) {
    if (l->journal >= 0 && sendmsg(l->journal, &message, MSG_NOSIGNAL) >= 0) return 0;
    /* journald was restarted: its socket is a new one. */
    if (l->journal >= 0) close(l->journal);
    l->journal = connect_journal();
  }
  return -1;
}

static int open_log_file(struct logger *l) {
  struct stat status;
  if (l->file < 0) l->file = open(l->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  if (l->file < 0 || fstat(l->file, &status) != 0) return -1;
  if ((size_t)status.st_size < l->file_max) return 0;
  char older[4200];
  snprintf(older, sizeof older, "%s.1", l->path);
  close(l->file);
  l->file = -1;
  return rename(l->path, older) == 0 ? open_log_file(l) : -1;
}

static void write_to_file(struct logger *l, int stream, const char *text, size_t length, int partial) {
  struct timespec now;
  struct tm utc;
  char head[96], stamp[32];
  if (open_log_file(l) != 0) return;
  clock_gettime(CLOCK_REALTIME, &now);
  gmtime_r(&now.tv_sec, &utc);
  strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
  int head_length = snprintf(head, sizeof head, "%s.%09ldZ %s %s ", stamp, now.tv_nsec,
                             stream == 2 ? "stderr" : "stdout", partial ? "P" : "F");
  struct iovec parts[] = {{head, (size_t)head_length}, {(char *)(uintptr_t)text, length}, {(char *)(uintptr_t) "\n", 1}};
  /* A full disk loses log lines, never the container. */
  if (writev(l->file, parts, 3) < 0) return;
}

static void emit(struct logger *l, int stream, const char *text, size_t length, int partial) {
  if (length == 0 && partial) return;
  if (l->journal >= 0 && send_to_journal(l, stream, text, length, partial) == 0) return;
  write_to_file(l, stream, text, length, partial);
}

int logger_read(struct logger *l, int fd, int stream) {
  struct stream *s = &l->streams[stream - 1];
  ssize_t got = read(fd, s->text + s->length, sizeof s->text - s->length);
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return 1;
  if (got <= 0) {
    if (s->length > 0) emit(l, stream, s->text, s->length, 0);
    s->length = 0;
    return 0;
  }
  s->length += (size_t)got;
  char *line = s->text, *end = s->text + s->length, *newline;
  while ((newline = memchr(line, '\n', (size_t)(end - line))) != NULL) {
    emit(l, stream, line, (size_t)(newline - line), 0);
    line = newline + 1;
  }
  s->length = (size_t)(end - line);
  memmove(s->text, line, s->length);
  if (s->length == sizeof s->text) {
    emit(l, stream, s->text, s->length, 1);
    s->length = 0;
  }
  return 1;
}
