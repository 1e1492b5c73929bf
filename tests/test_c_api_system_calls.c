/* A run at one thread makes no system call but to read the clock, which some machines have no other way for: it opens
 * no file, maps no memory, waits for no lock. A child process has the kernel end it at any other call (a seccomp
 * filter), then inspects. */
#define _GNU_SOURCE /* syscall */

#include <stdio.h>

#include "session_check.h"

#if defined(__linux__) && !defined(SANITIZED) /* sanitizers make calls of their own */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FRAMES = 300, RIGHT = 0, WRONG = 1, NO_SECCOMP = 2 };

typedef struct scene {
  onceover_session* session;
  frame seen[2];
} scene;

static int inspect(scene* at) {
  static float map[64 * 48];
  onceover_region regions[4];
  size_t count = 0;
  int right = 1;
  for (size_t i = 0; i < FRAMES; ++i) {
    onceover_result result = {.struct_size = sizeof result};
    right &= onceover_session_run(at->session, &at->seen[i % 2].image, &result) == ONCEOVER_OK;
    right &= result.verdict == (i % 2 == 0 ? ONCEOVER_NORMAL : ONCEOVER_ANOMALOUS);
    right &= onceover_session_draw_map(at->session, map, 64, 48, 48) == ONCEOVER_OK;
    right &= onceover_session_find_regions(at->session, map, 64, 48, 48, regions, 4, &count) == ONCEOVER_OK;
  }
  return right;
}

static int open_a_file(scene* unused) {
  (void)unused;
  return fopen(package_path, "rb") != NULL;
}

static int forbid_system_calls(void) {
  struct sock_filter rules[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 2, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clock_gettime, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const struct sock_fprog program = {sizeof rules / sizeof *rules, rules};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* The child's exit status, or minus the signal that ended it. */
static int quietly(int (*deed)(scene*), scene* at) {
  int status = 0;
  const pid_t child = fork();
  if (child == 0) {
    if (!forbid_system_calls()) _exit(NO_SECCOMP);
    _exit(deed(at) ? RIGHT : WRONG);
  }
  if (child < 0 || waitpid(child, &status, 0) != child) exit(2);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void a_run_makes_no_system_call(void) {
  static scene at;
  at.session = host_session();
  fill_frame(&at.seen[0], 100, 0);
  fill_frame(&at.seen[1], 100, 1);
  const int opening = quietly(open_a_file, &at); /* what is forbidden is noticed */
  CHECK(opening == -SIGSYS || opening == NO_SECCOMP);
  if (opening == NO_SECCOMP) {
    printf("SKIPPED: no seccomp here\n");
  } else {
    CHECK(quietly(inspect, &at) == RIGHT);
  }
  onceover_session_free(at.session);
}
#else
static void a_run_makes_no_system_call(void) {
  printf("SKIPPED: not Linux, or sanitizers are in the way\n");
  CHECK(package_path != NULL);
}
#endif

int main(int argc, char** argv) {
  take_package_path(argc, argv);
  a_run_makes_no_system_call();
  return summary("test_c_api_system_calls");
}
