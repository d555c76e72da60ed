/* Context switch for 64-bit Arm, AAPCS64. The frame at a suspended stack pointer:
 *
 *      sp+0    FPCR  sp+8  unused
 *      sp+16   x19   sp+24 x20   sp+32 x21   sp+40 x22   sp+48 x23
 *      sp+56   x24   sp+64 x25   sp+72 x26   sp+80 x27   sp+88 x28
 *      sp+96   x29   sp+104 x30 (where the switch returns to)
 *      sp+112  d8    sp+120 d9   ...         sp+168 d15
 *
 * x18 belongs to the platform. Of v8-v15 a callee keeps the lower halves only; FPSR, NZCV and the SVE registers are
 * the caller's. Return addresses are stored as they come: a caller that signs them signs and checks its own.
 */
#include "machine/switch_config.h"
#if defined(__aarch64__) && !defined(PG_SWITCH_PORTABLE)
        .text

/* void *pg_switch(void **save [x0], void *resume [x1], void *value [x2]) */
        .globl  pg_switch
        .hidden pg_switch
        .type   pg_switch, %function
        .p2align 4
pg_switch:
        .cfi_startproc
        hint    #34                     /* bti c; does nothing where there is no branch protection */
        sub     sp, sp, #PG_SWITCH_FRAME
        .cfi_def_cfa_offset PG_SWITCH_FRAME
        stp     x19, x20, [sp, #16]
        .cfi_rel_offset x19, 16
        .cfi_rel_offset x20, 24
        stp     x21, x22, [sp, #32]
        .cfi_rel_offset x21, 32
        .cfi_rel_offset x22, 40
        stp     x23, x24, [sp, #48]
        .cfi_rel_offset x23, 48
        .cfi_rel_offset x24, 56
        stp     x25, x26, [sp, #64]
        .cfi_rel_offset x25, 64
        .cfi_rel_offset x26, 72
        stp     x27, x28, [sp, #80]
        .cfi_rel_offset x27, 80
        .cfi_rel_offset x28, 88
        stp     x29, x30, [sp, #96]
        .cfi_rel_offset x29, 96
        .cfi_rel_offset x30, 104
        stp     d8, d9, [sp, #112]
        .cfi_rel_offset d8, 112
        .cfi_rel_offset d9, 120
        stp     d10, d11, [sp, #128]
        .cfi_rel_offset d10, 128
        .cfi_rel_offset d11, 136
        stp     d12, d13, [sp, #144]
        .cfi_rel_offset d12, 144
        .cfi_rel_offset d13, 152
        stp     d14, d15, [sp, #160]
        .cfi_rel_offset d14, 160
        .cfi_rel_offset d15, 168
        mrs     x9, fpcr
        str     x9, [sp]
        mov     x10, sp
        str     x10, [x0]               /* suspended: the context is now complete */
        mov     sp, x1                  /* same frame layout on the other stack, so the CFI stays true */
        ldr     x10, [sp]
        cmp     x9, x10                 /* writing FPCR is slow, and nearly always it stays the same */
        b.eq    1f
        msr     fpcr, x10
1:      ldp     d14, d15, [sp, #160]
        .cfi_restore d14
        .cfi_restore d15
        ldp     d12, d13, [sp, #144]
        .cfi_restore d12
        .cfi_restore d13
        ldp     d10, d11, [sp, #128]
        .cfi_restore d10
        .cfi_restore d11
        ldp     d8, d9, [sp, #112]
        .cfi_restore d8
        .cfi_restore d9
        ldp     x29, x30, [sp, #96]
        .cfi_restore x29
        .cfi_restore x30
        ldp     x27, x28, [sp, #80]
        .cfi_restore x27
        .cfi_restore x28
        ldp     x25, x26, [sp, #64]
        .cfi_restore x25
        .cfi_restore x26
        ldp     x23, x24, [sp, #48]
        .cfi_restore x23
        .cfi_restore x24
        ldp     x21, x22, [sp, #32]
        .cfi_restore x21
        .cfi_restore x22
        ldp     x19, x20, [sp, #16]
        .cfi_restore x19
        .cfi_restore x20
        add     sp, sp, #PG_SWITCH_FRAME
        .cfi_def_cfa_offset 0
        mov     x0, x2
        ret
        .cfi_endproc
        .size   pg_switch, .-pg_switch

/* First code on a new stack: x0 holds the value passed, x19 the entry function. Reached by ret: no landing pad. */
        .globl  pg_switch_trampoline
        .hidden pg_switch_trampoline
        .type   pg_switch_trampoline, %function
        .p2align 4
pg_switch_trampoline:
        .cfi_startproc
        .cfi_undefined x30              /* outermost frame: unwinders and pthread_exit stop here */
        .cfi_undefined x29
        nop                             /* PG_SWITCH_ENTRY */
        mov     x29, xzr                /* and so do those that follow frame records */
        mov     x30, xzr
        blr     x19
        brk     #1
        .cfi_endproc
        .size   pg_switch_trampoline, .-pg_switch_trampoline

/* void *pg_switch_call_on(void *top [x0], void *(*function)(void *) [x1], void *argument [x2]) */
        .globl  pg_switch_call_on
        .hidden pg_switch_call_on
        .type   pg_switch_call_on, %function
        .p2align 4
pg_switch_call_on:
        .cfi_startproc
        hint    #34                     /* bti c */
        stp     x29, x30, [sp, #-16]!
        .cfi_def_cfa_offset 16
        .cfi_rel_offset x29, 0
        .cfi_rel_offset x30, 8
        mov     x29, sp
        .cfi_def_cfa_register x29       /* so the unwinder finds its way back to the old stack */
        mov     sp, x0
        mov     x0, x2
        blr     x1
        mov     sp, x29
        .cfi_def_cfa_register sp
        ldp     x29, x30, [sp], #16
        .cfi_restore x29
        .cfi_restore x30
        .cfi_def_cfa_offset 0
        ret
        .cfi_endproc
        .size   pg_switch_call_on, .-pg_switch_call_on

#if defined(__ARM_FEATURE_BTI_DEFAULT)
/* Tell the linker that all indirect branches here have landing pads, or it drops the protection for everybody. */
        .pushsection .note.gnu.property, "a", %note
        .p2align 3
        .word   4, 16, 5                /* sizes of name and description, NT_GNU_PROPERTY_TYPE_0 */
        .asciz  "GNU"
        .word   0xc0000000, 4, 1, 0     /* GNU_PROPERTY_AARCH64_FEATURE_1_AND, its size, BTI, padding */
        .popsection
#endif
#endif
        .section .note.GNU-stack, "", %progbits
