/* Terminals: one of the container's own devpts, its other end given to --console-socket or joined with ours. */
#include "system.h"
#include "oci.h"

int open_terminal(const struct record *console, int pts, int *slave) {
  int zero = 0, master = openat(pts, "ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
  struct winsize size = {.ws_row = (unsigned short)console->f[1].number, .ws_col = (unsigned short)console->f[2].number};
  if (master < 0) fail("open terminal", "/dev/pts/ptmx");
  if (ioctl(master, TIOCSPTLCK, &zero) != 0) fail("unlock terminal", "");
  *slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (*slave < 0) fail("open terminal's end", "");
  if ((size.ws_row || size.ws_col) && ioctl(master, TIOCSWINSZ, &size) != 0) fail("set terminal size", "");
  return master;
}

/* A message with room for one descriptor; it is the same each time. */
static struct msghdr *carrier(void *text, size_t length) {
  static _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  static struct iovec part;
  static struct msghdr message;
  part = (struct iovec){text, length};
  message = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  return &message;
}

int send_descriptor(int to, int fd, const char *text) {
  struct msghdr *message = carrier((void *)(uintptr_t)text, strlen(text));
  struct cmsghdr *head = CMSG_FIRSTHDR(message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(head), &fd, sizeof fd);
  return sendmsg(to, message, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

int receive_descriptor(int from) {
  char text[256];
  struct msghdr *message = carrier(text, sizeof text);
  int fd = -1;
  if (recvmsg(from, message, MSG_CMSG_CLOEXEC) <= 0) return -1;
  struct cmsghdr *head = CMSG_FIRSTHDR(message);
  if (head != NULL && head->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(head), sizeof fd);
  return fd;
}

int exit_code(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

static int copy(int from, int to) {
  char bytes[8192];
  ssize_t got = read(from, bytes, sizeof bytes);
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return 1;
  for (ssize_t done = 0; got > 0 && done < got;) {
    ssize_t wrote = write(to, bytes + done, (size_t)(got - done));
    if (wrote < 0 && errno != EINTR) return 0;
    if (wrote > 0) done += wrote;
  }
  return got > 0;
}

static int all_signals(void) {
  sigset_t set;
  sigfillset(&set);
  sigdelset(&set, SIGSEGV);
  sigdelset(&set, SIGBUS);
  sigprocmask(SIG_SETMASK, &set, NULL);
  return signalfd(-1, &set, SFD_CLOEXEC);
}

/* The container's terminal gets the size of ours; without one, that which `sizes` tells. */
static void resize(int master, int sizes) {
  struct winsize size;
  if (ioctl(0, TIOCGWINSZ, &size) == 0 && ioctl(master, TIOCSWINSZ, &size) == 0) return;
  while (recv(sizes, &size, sizeof size, MSG_DONTWAIT) == (ssize_t)sizeof size) ioctl(master, TIOCSWINSZ, &size);
}

/* Forwards what we are told to the process; a changed window to the terminal. */
static void forward_signal(int signals, int process, int master, int sizes) {
  struct signalfd_siginfo info;
  if (read(signals, &info, sizeof info) != (ssize_t)sizeof info) return;
  int number = (int)info.ssi_signo;
  if (number == SIGCHLD || number == SIGPIPE || number == SIGTTIN || number == SIGTTOU) return;
  if (number == SIGWINCH && master >= 0) return resize(master, sizes);
  syscall(SYS_pidfd_send_signal, process, number, NULL, 0);
}

static int wait_relaying(int process, pid_t pid, int master, int sizes) {
  int signals = all_signals(), status = 0;
  struct pollfd polled[4] = {{process, POLLIN, 0}, {signals, POLLIN, 0}, {master, POLLIN, 0}, {master < 0 ? -1 : 0, POLLIN, 0}};
  if (master >= 0) resize(master, sizes);
  for (int ended = 0; !ended || polled[2].fd >= 0;) {
    int ready = poll(polled, 4, ended ? 500 : -1);
    if (ready == 0 && ended) break;
    if (ready <= 0) continue;
    if (polled[1].revents) forward_signal(signals, process, master, sizes);
    if (polled[3].revents && !copy(0, master)) polled[3].fd = -1;
    if (polled[2].revents && !copy(master, 1)) polled[2].fd = -1;
    if (polled[0].revents) {
      while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
      polled[0].fd = -1;
      ended = 1;
    }
  }
  close(signals);
  return exit_code(status);
}

int wait_process(int process, pid_t pid) { return wait_relaying(process, pid, -1, -1); }

int relay_terminal(int master, int process, pid_t pid, int sizes) {
  struct termios before, raw;
  int terminal = tcgetattr(0, &before) == 0;
  if (terminal) {
    raw = before;
    cfmakeraw(&raw);
    tcsetattr(0, TCSANOW, &raw);
  }
  int code = wait_relaying(process, pid, master, sizes);
  if (terminal) tcsetattr(0, TCSANOW, &before);
  return code;
}
