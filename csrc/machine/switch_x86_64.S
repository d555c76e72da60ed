/* Context switch for x86-64, System V ABI. The frame at a suspended stack pointer:
 *
 *      sp+0    MXCSR, then the x87 control word at sp+4
 *      sp+8    r15   sp+16 r14   sp+24 r13   sp+32 r12   sp+40 rbx   sp+48 rbp
 *      sp+56   return address
 */
#include "machine/switch_config.h"
#if defined(__x86_64__) && !defined(PG_SWITCH_PORTABLE)
        .text

/* void *pg_switch(void **save [rdi], void *resume [rsi], void *value [rdx]) */
        .globl  pg_switch
        .hidden pg_switch
        .type   pg_switch, @function
        .p2align 4
pg_switch:
        .cfi_startproc
        endbr64
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        pushq   %rbx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbx, 0
        pushq   %r12
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r12, 0
        pushq   %r13
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r13, 0
        pushq   %r14
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r14, 0
        pushq   %r15
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r15, 0
        subq    $8, %rsp
        .cfi_adjust_cfa_offset 8
        stmxcsr (%rsp)
        fnstcw  4(%rsp)
        movq    %rsp, (%rdi)            /* suspended: the context is now complete */
        movq    %rsi, %rsp              /* same frame layout on the other stack, so the CFI stays true */
        ldmxcsr (%rsp)
        fldcw   4(%rsp)
        addq    $8, %rsp
        .cfi_adjust_cfa_offset -8
        popq    %r15
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r15
        popq    %r14
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r14
        popq    %r13
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r13
        popq    %r12
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r12
        popq    %rbx
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbx
        popq    %rbp
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbp
        movq    %rdx, %rax
        ret
        .cfi_endproc
        .size   pg_switch, .-pg_switch

/* First code on a new stack: rax holds the value passed, rbx the entry function. */
        .globl  pg_switch_trampoline
        .hidden pg_switch_trampoline
        .type   pg_switch_trampoline, @function
        .p2align 4
pg_switch_trampoline:
        .cfi_startproc
        .cfi_undefined %rip             /* outermost frame: unwinders and pthread_exit stop here */
        .cfi_undefined %rbp
        endbr64                         /* 4 bytes: PG_SWITCH_ENTRY */
        movq    %rax, %rdi
        xorl    %ebp, %ebp
        call    *%rbx                   /* rsp is 0 mod 16 here, as the ABI wants before a call */
        ud2
        .cfi_endproc
        .size   pg_switch_trampoline, .-pg_switch_trampoline

/* void *pg_switch_call_on(void *top [rdi], void *(*function)(void *) [rsi], void *argument [rdx]) */
        .globl  pg_switch_call_on
        .hidden pg_switch_call_on
        .type   pg_switch_call_on, @function
        .p2align 4
pg_switch_call_on:
        .cfi_startproc
        endbr64
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        movq    %rsp, %rbp
        .cfi_def_cfa_register %rbp      /* so the unwinder finds its way back to the old stack */
        movq    %rdi, %rsp
        movq    %rdx, %rdi
        call    *%rsi
        movq    %rbp, %rsp
        .cfi_def_cfa_register %rsp
        popq    %rbp
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbp
        ret
        .cfi_endproc
        .size   pg_switch_call_on, .-pg_switch_call_on
#endif
        .section .note.GNU-stack, "", @progbits
