/* Counters, the log of streams, and the queue of asynchronous work. */
#include "null.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define MOST_PENDING 10000 /* after so many operations a real device has begun */

static const char *const names[COUNTERS] = {
    "launch",         "blas",   "cudnn", "copy_to_device", "copy_to_host", "copy_on_device",
    "memset",         "collective", "device_sync", "stream_sync",    "event_sync",   "blocking_copy",
};
static long counts[COUNTERS];

void count(enum counter what) { __atomic_add_fetch(&counts[what], 1, __ATOMIC_RELAXED); }

EXPORT int null_counters(void) { return COUNTERS; }
EXPORT const char *null_name(int counter) { return names[counter]; }
EXPORT long null_count(int counter) { return counts[counter]; }
EXPORT void null_count_cudnn(void) { count(CUDNN); }

/* --- the log */

static char text[1 << 20];
static size_t length;
static bool logging;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

void record(const char *format, ...) {
    if (!logging)
        return;
    va_list arguments;
    va_start(arguments, format);
    pthread_mutex_lock(&log_lock);
    int more = vsnprintf(text + length, sizeof text - length, format, arguments);
    length = length + more < sizeof text ? length + more : sizeof text - 1;
    pthread_mutex_unlock(&log_lock);
    va_end(arguments);
}

/* Turn the log on, empty, or off. */
EXPORT void null_log(bool on) {
    if (on)
        length = 0;
    logging = on;
}
EXPORT const char *null_log_text(void) { return text; }

/* --- the queue */

struct work {
    void (*run)(void *);
    void *argument;
    struct work *next;
};
static struct work *first, **last = &first;
static long newest, requested, done;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void *run_queue(void *unused) {
    pthread_mutex_lock(&lock);
    for (;;) {
        while (done >= requested)
            pthread_cond_wait(&changed, &lock);
        struct work *work = first;
        first = work->next;
        if (first == NULL)
            last = &first;
        pthread_mutex_unlock(&lock);
        work->run(work->argument);
        free(work);
        pthread_mutex_lock(&lock);
        done++;
        pthread_cond_broadcast(&changed);
    }
    return unused;
}

/* Have the work up to a number run. With the lock. */
static void request(long number) {
    static bool started = false;
    if (!started) {
        pthread_t thread;
        pthread_create(&thread, NULL, run_queue, NULL);
        pthread_detach(thread);
        started = true;
    }
    if (number > requested) {
        requested = number;
        pthread_cond_broadcast(&changed);
    }
}

long submit(void (*run)(void *), void *argument, bool urgent) {
    struct work *work = malloc(sizeof *work);
    *work = (struct work){run, argument, NULL};
    pthread_mutex_lock(&lock);
    *last = work;
    last = &work->next;
    long number = ++newest;
    if (urgent || newest - done > MOST_PENDING)
        request(number);
    pthread_mutex_unlock(&lock);
    return number;
}

long submitted(void) {
    pthread_mutex_lock(&lock);
    long number = newest;
    pthread_mutex_unlock(&lock);
    return number;
}

void finish(long number) {
    pthread_mutex_lock(&lock);
    if (done < number)
        request(number);
    while (done < number)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

bool is_finished(long number) {
    pthread_mutex_lock(&lock);
    bool finished = done >= number;
    if (!finished)
        request(number);
    pthread_mutex_unlock(&lock);
    return finished;
}
