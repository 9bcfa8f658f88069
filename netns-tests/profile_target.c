// SPDX-License-Identifier: GPL-2.0-only
/*
 * Functions that share the time as their names say, for trace profile to find out. Built with frame pointers:
 *   profile_target run       one, three and six tenths, until standard input ends
 *   profile_target compiled  the same in memory that it copied the code into, with a map of it in /tmp/perf-PID.map
 *   profile_target wait N    N naps, which it tells the time of; then it waits for the end of standard input in another function
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

#define KEPT __attribute__((noinline, noclone))
#define ROUNDS 20000

/* What is behind a call keeps it from being a jump, which would leave no frame. */
#define NOT_LAST __asm__ volatile("" ::: "memory")

/* The same loop in each, in code that may be copied. Who asks for his frame has one, also where he calls nobody. */
#define SPIN(name)                                                                                 \
    __attribute__((noinline, noclone, aligned(64))) void name(uint64_t rounds) {                   \
        __asm__ volatile("" ::"r"(__builtin_frame_address(0)));                                    \
        for (uint64_t i = 0; i < rounds; i++)                                                      \
            __asm__ volatile("" : "+r"(i));                                                        \
    }
#define CODE_BYTES 256
SPIN(one_tenth)
SPIN(three_tenths)
SPIN(six_tenths)

typedef void spin(uint64_t);
static spin* const spins[] = {one_tenth, three_tenths, six_tenths};
/* As runtimes call what they compile, and as they do not. */
static const char* const names[] = {"<one&\033[31m tenth>", "three_tenths", "Lhot;::six_tenths"};
static const uint64_t tenths[] = {1, 3, 6};

static int ended(void) {
    struct timeval none = {0};
    fd_set in;

    FD_ZERO(&in);
    FD_SET(0, &in);
    return select(1, &in, NULL, NULL, &none) > 0;
}

KEPT void spin_all(spin* const* functions) {
    for (int i = 0; i < 3; i++)
        functions[i](tenths[i] * ROUNDS);
    NOT_LAST;
}

static void run(spin* const* functions) {
    puts("ready");
    fflush(stdout);
    while (!ended())
        for (int i = 0; i < 20; i++)
            spin_all(functions);
}

static void compiled(void) {
    char path[64];
    char* code = mmap(NULL, 3 * CODE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    spin* copies[3];
    FILE* map;

    if (code == MAP_FAILED)
        exit(1);
    snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
    map = fopen(path, "wx");
    if (!map)
        exit(1);
    for (int i = 0; i < 3; i++) {
        char* copy = memcpy(code + i * CODE_BYTES, (void*)spins[i], CODE_BYTES);

        copies[i] = (spin*)copy;
        fprintf(map, "%lx %x %s\n", (unsigned long)copy, CODE_BYTES, names[i]);
    }
    fclose(map);
    __builtin___clear_cache(code, code + 3 * CODE_BYTES);
    run(copies);
}

/* A function of the C library has no frame pointer, and hides who called it: whose frame is missing is this one's. */
KEPT static void sleep_some(void) {
    const struct timespec some = {0, 20000000};

    nanosleep(&some, NULL);
    NOT_LAST;
}

KEPT void nap(void) {
    sleep_some();
    NOT_LAST;
}

KEPT static void read_some(void) {
    char byte;

    while (read(0, &byte, 1) > 0)
        ;
    NOT_LAST;
}

KEPT void listen_to_input(void) {
    read_some();
    NOT_LAST;
}

static long long now(void) {
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static void wait_here(int count) {
    long long begin;
    char line[16];

    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof(line), stdin))
        return;
    begin = now();
    for (int i = 0; i < count; i++)
        nap();
    printf("napped %lld\n", now() - begin);
    fflush(stdout);
    listen_to_input();
}

int main(int argc, char** argv) {
    if (argc == 2 && !strcmp(argv[1], "run"))
        run(spins);
    else if (argc == 2 && !strcmp(argv[1], "compiled"))
        compiled();
    else if (argc == 3 && !strcmp(argv[1], "wait"))
        wait_here(atoi(argv[2]));
    else
        return 2;
    return 0;
}
