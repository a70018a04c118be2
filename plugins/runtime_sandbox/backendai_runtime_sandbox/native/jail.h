/* What the shim (shim.c) and the jail (jail.c) share. */

#ifndef JAIL_H
#define JAIL_H

#include <stdio.h>

/* A plan: words, each ended by a zero byte; an operation is its name and a fixed number of words. */
struct plan {
    char *at, *end;
};

extern int complain_to; /* where a step that fails says so */
extern int lifeline;    /* a pipe that ends when our parent does */

struct plan read_plan(int fd);
char *next_word(struct plan *plan);
void loopback_up(void);
void put(const char *path, const char *text);
_Noreturn void fail(int status, const char *step, const char *what);
_Noreturn void follow(struct plan plan); /* carries out the operations up to `exec` */

#endif
