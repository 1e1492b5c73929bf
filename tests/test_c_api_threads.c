/* Four threads, a session each, one package: the answers of one thread alone; and a session that two threads want at
 * once refuses the second. */
#define _POSIX_C_SOURCE 200112L

#include <pthread.h>

#include "session_check.h"

enum { THREADS = 4, IMAGES = 6, ROUNDS = 8 };

typedef struct task {
  const onceover_package* package;
  const onceover_result* expected;
  int right;
} task;

static void* inspect_all(void* context) {
  task* mine = context;
  onceover_session* session = NULL;
  const onceover_session_options options = host_options();
  frame seen;
  mine->right = onceover_session_create(mine->package, &options, &session) == ONCEOVER_OK;
  mine->right &= strlen(onceover_last_error()) == 0; /* another thread's message is not ours */
  for (uint32_t i = 0; mine->right && i < IMAGES * ROUNDS; ++i) {
    onceover_result result = {.struct_size = sizeof result};
    fill_frame(&seen, 50 + i % IMAGES, i % IMAGES % 2 == 1);
    mine->right &= onceover_session_run(session, &seen.image, &result) == ONCEOVER_OK;
    mine->right &= same_result(result, mine->expected[i % IMAGES]);
  }
  mine->right &= onceover_session_self_test(session, NULL, NULL) == ONCEOVER_OK;
  onceover_session_free(session);
  return NULL;
}

static void threads_with_a_session_each_share_a_package(void) {
  onceover_package* package = opened();
  onceover_session* session = host_session();
  onceover_result expected[IMAGES];
  task tasks[THREADS];
  pthread_t threads[THREADS];
  frame seen;
  for (uint32_t i = 0; i < IMAGES; ++i) {
    fill_frame(&seen, 50 + i, i % 2 == 1);
    expected[i] = run_of(session, &seen.image);
  }
  onceover_session_free(session);
  CHECK_FAILS(onceover_session_set_threshold(NULL, 1), ONCEOVER_USAGE, "session is NULL"); /* of this thread */
  for (size_t i = 0; i < THREADS; ++i) {
    tasks[i] = (task){package, expected, 0};
    if (pthread_create(&threads[i], NULL, inspect_all, &tasks[i]) != 0) exit(2);
  }
  for (size_t i = 0; i < THREADS; ++i) pthread_join(threads[i], NULL);
  for (size_t i = 0; i < THREADS; ++i) CHECK(tasks[i].right);
  onceover_package_free(package);
}

/* ---- A session that is in use: the network waits inside of a run until the other thread was refused. ---- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int inside = 0, refused = 0;

static void set_and_wait(int* set, const int* awaited) {
  pthread_mutex_lock(&mutex);
  *set = 1;
  pthread_cond_broadcast(&changed);
  while (!*awaited) pthread_cond_wait(&changed, &mutex);
  pthread_mutex_unlock(&mutex);
}

static int32_t waiting_network(void* context, const float* input, float* output) {
  set_and_wait(&inside, &refused);
  return host_network(context, input, output);
}

static void* run_once(void* session) {
  onceover_result result = {.struct_size = sizeof result};
  frame seen;
  fill_frame(&seen, 57, 0);
  return onceover_session_run(session, &seen.image, &result) == ONCEOVER_OK ? session : NULL;
}

static void a_second_thread_is_refused_and_does_not_wait(void) {
  onceover_package* package = opened();
  onceover_session_options options = host_options();
  options.host_run = waiting_network;
  onceover_session* session = created(package, &options);
  onceover_result result = {.struct_size = sizeof result};
  pthread_t thread;
  void* succeeded = NULL;
  int always = 1;
  frame seen;
  fill_frame(&seen, 57, 0);
  if (pthread_create(&thread, NULL, run_once, session) != 0) exit(2);
  pthread_mutex_lock(&mutex);
  while (!inside) pthread_cond_wait(&changed, &mutex);
  pthread_mutex_unlock(&mutex);
  CHECK_FAILS(onceover_session_run(session, &seen.image, &result), ONCEOVER_USAGE, "in use by another thread");
  set_and_wait(&refused, &always);
  pthread_join(thread, &succeeded);
  CHECK(succeeded == session);
  CHECK(onceover_session_run(session, &seen.image, &result) == ONCEOVER_OK); /* free again */
  onceover_session_free(session);
  onceover_package_free(package);
}

int main(int argc, char** argv) {
  take_package_path(argc, argv);
  threads_with_a_session_each_share_a_package();
  a_second_thread_is_refused_and_does_not_wait();
  return summary("test_c_api_threads");
}
