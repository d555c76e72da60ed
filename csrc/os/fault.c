/* The handler of stack overflow, see fault.h.
 *
 * A hit of a guard is fatal, so the handler only has to speak and to get out of the way. It is one of a chain: what was
 * installed before it (faulthandler, a crash reporter, a library that repairs its own faults) is called as the kernel
 * would have called it, for every SIGSEGV; with nothing there, the process ends with the signal, at the instruction
 * that faulted. After a hit that happens also when the others return: nobody can repair a full stack.
 *
 * A handler installed above ours later may call us with the signal's own information, or raise the signal again, as
 * faulthandler does. Then the address is lost; but for the first handler the kernel has laid the registers, and among
 * them the address, at the top of this thread's alternate stack. Nothing else there points into the guard of the very
 * stack that this thread runs on.
 *
 * Rejected: a handler per fault kind (SIGBUS never comes from a guard); installing ours again when it has been
 * covered (two handlers that each save the other never end).
 */
#include "os/fault.h"

#include <errno.h>
#include <signal.h>

#include "base/atomic.h"
#include "os/os.h"

enum { ALTERNATE = 64 * 1024 }; /* a report with tracebacks above ours, and the large register sets of new CPUs, twice */

static pg_fault_hooks fault_hooks;
static struct sigaction previous;
static atomic_bool installed;

static bool is_from_a_fault(const siginfo_t *info) { return info->si_code == SEGV_MAPERR || info->si_code == SEGV_ACCERR; }

/* Reads whatever lies there. */
__attribute__((no_sanitize_address, no_sanitize_thread)) static const char *find_hidden_overflow(void)
{
    stack_t alternate;
    if (sigaltstack(NULL, &alternate) != 0 || (alternate.ss_flags & SS_DISABLE)) return NULL;
    char **end = (char **)((char *)alternate.ss_sp + alternate.ss_size), **at = __builtin_frame_address(0);
    if ((char *)at < (char *)alternate.ss_sp) return NULL;
    while (at < end && !fault_hooks.is_overflow(*at)) at++;
    return at < end ? *at : NULL;
}

/* The address in the guard, or NULL: the signal has nothing to do with it. */
static const char *find_overflow(const siginfo_t *info)
{
    if (!is_from_a_fault(info)) return find_hidden_overflow();
    return fault_hooks.is_overflow(info->si_addr) ? info->si_addr : NULL;
}

static void call_previous(int number, siginfo_t *info, void *context)
{
    struct sigaction action = previous;
    if (action.sa_flags & SA_RESETHAND) previous.sa_handler = SIG_DFL;
    if (action.sa_flags & SA_SIGINFO) action.sa_sigaction(number, info, context);
    else action.sa_handler(number);
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    int saved = errno;
    const char *overflow = find_overflow(info);
    bool raised = info->si_code <= 0; /* by somebody, with kill() or the like */
    if (overflow != NULL) fault_hooks.report(overflow);
    if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        call_previous(number, info, context);
        errno = saved;
        if (overflow == NULL) return;
    } else if (previous.sa_handler == SIG_IGN && raised && overflow == NULL) {
        return;
    }
    struct sigaction ending = {.sa_handler = SIG_DFL};
    sigaction(number, &ending, NULL);
    if (raised) raise(number); /* else the instruction is about to fault again */
    errno = saved;
}

void pg_fault_install(const pg_fault_hooks *hooks)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    if (pg_exchange_acqrel(&installed, true)) return;
    fault_hooks = *hooks;
    sigemptyset(&action.sa_mask);
    /* First learn what is there, then replace it: from then on a fault may need to know. */
    sigaction(SIGSEGV, NULL, &previous);
    sigaction(SIGSEGV, &action, NULL);
}

void *pg_fault_stack_take(void)
{
    stack_t alternate;
    if (sigaltstack(NULL, &alternate) != 0 || !(alternate.ss_flags & SS_DISABLE)) return NULL;
    alternate = (stack_t){.ss_sp = pg_pages_reserve(ALTERNATE), .ss_size = ALTERNATE};
    if (alternate.ss_sp == NULL) return NULL;
    if (sigaltstack(&alternate, NULL) == 0) return alternate.ss_sp;
    pg_pages_free(alternate.ss_sp, ALTERNATE);
    return NULL;
}

void pg_fault_stack_drop(void *alternate)
{
    stack_t now;
    if (alternate == NULL) return;
    if (sigaltstack(NULL, &now) == 0 && now.ss_sp == alternate) {
        now = (stack_t){.ss_flags = SS_DISABLE};
        sigaltstack(&now, NULL);
    }
    pg_pages_free(alternate, ALTERNATE);
}
