/* AVX-VNNI for CPUs that lack it: loaded before a program, this executes each of its instructions in the
 * handler of the SIGILL that the CPU raises instead. `make test-avxvnni` runs the tests of the kernels so.
 *
 * It knows VPDPBUSD and VPDPWSSD, as they are encoded without AVX-512 (VEX; Intel's manual, volume 2): to each
 * 32-bit lane of the first register, the products of the second, unsigned bytes, and the third, signed bytes,
 * are added; or those of two pairs of signed 16-bit words. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

enum { XMM = 160, FEATURES = 512, YMM_HIGH = 576, LANES_OF_XMM = 4, HAS_SSE = 2, HAS_AVX = 4 };

static const int NAMES[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                              REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

/* Lane `lane` of vector register `number`, in the state that the kernel saved (XSAVE's standard form). */
static uint8_t *lane_of(uint8_t *saved, int number, int lane) {
    int high = lane / LANES_OF_XMM;
    return saved + (high ? YMM_HIGH : XMM) + 16 * number + 4 * (lane % LANES_OF_XMM);
}

static int32_t of_bytes(const uint8_t *y, const uint8_t *x) {
    int32_t sum = 0;
    for (int i = 0; i < 4; i++) sum += (int32_t)y[i] * (int8_t)x[i];
    return sum;
}

static int32_t of_words(const uint8_t *y, const uint8_t *x) {
    int16_t a[2], b[2];
    memcpy(a, y, 4);
    memcpy(b, x, 4);
    return (int32_t)((uint32_t)(a[0] * b[0]) + (uint32_t)(a[1] * b[1]));
}

/* The address of a memory operand; `*at` moves from the ModRM byte to the next instruction. */
static const uint8_t *address(const greg_t *regs, const uint8_t **at, int x_bit, int b_bit) {
    const uint8_t *code = *at;
    int mod = *code >> 6, base = *code & 7;
    int64_t sum = 0;
    int32_t far = 0;
    code++;
    if (base == 4) {
        int index = (*code >> 3 & 7) | x_bit << 3, scale = *code >> 6;
        base = *code & 7;
        code++;
        if (index != 4) sum += regs[NAMES[index]] << scale;
        if (base != 5 || mod) sum += regs[NAMES[base | b_bit << 3]];
    } else if (base != 5 || mod) {
        sum += regs[NAMES[base | b_bit << 3]];
    }
    if (mod == 1) {
        sum += (int8_t)*code++;
    } else if (mod == 2 || base == 5) {
        memcpy(&far, code, 4);
        code += 4;
        sum += far;
        if (mod == 0 && (**at & 7) == 5) sum += (int64_t)(intptr_t)code; /* relative to what follows */
    }
    *at = code;
    return (const uint8_t *)(intptr_t)sum;
}

static void execute(int number, siginfo_t *info, void *context) {
    (void)info;
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    uint8_t *saved = (uint8_t *)((ucontext_t *)context)->uc_mcontext.fpregs;
    const uint8_t *code = (const uint8_t *)(intptr_t)regs[REG_RIP];
    /* VEX of three bytes; map 0F38, W 0, prefix 66. */
    if (code[0] != 0xC4 || (code[1] & 31) != 2 || (code[2] & 0x83) != 1 || (code[3] != 0x50 && code[3] != 0x52)) {
        signal(number, SIG_DFL); /* another instruction: it is raised again, and ends the process */
        return;
    }
    int r_bit = !(code[1] & 0x80), x_bit = !(code[1] & 0x40), b_bit = !(code[1] & 0x20);
    int second = 15 - (code[2] >> 3 & 15), lanes = code[2] & 4 ? 8 : 4, bytes = code[3] == 0x50;
    code += 4;
    int first = (*code >> 3 & 7) | r_bit << 3, third = (*code & 7) | b_bit << 3;
    const uint8_t *memory = NULL;
    if (*code >> 6 == 3) {
        code++;
    } else {
        memory = address(regs, &code, x_bit, b_bit);
    }
    /* Registers that are all zeros may not have been saved. */
    uint64_t features;
    memcpy(&features, saved + FEATURES, 8);
    if (!(features & HAS_SSE)) memset(saved + XMM, 0, 256);
    if (!(features & HAS_AVX)) memset(saved + YMM_HIGH, 0, 256);
    features |= HAS_SSE | HAS_AVX;
    memcpy(saved + FEATURES, &features, 8);
    for (int lane = 0; lane < lanes; lane++) {
        const uint8_t *y = lane_of(saved, second, lane);
        const uint8_t *x = memory ? memory + 4 * lane : lane_of(saved, third, lane);
        uint32_t sum;
        memcpy(&sum, lane_of(saved, first, lane), 4);
        sum += (uint32_t)(bytes ? of_bytes(y, x) : of_words(y, x));
        memcpy(lane_of(saved, first, lane), &sum, 4);
    }
    if (lanes == LANES_OF_XMM) memset(saved + YMM_HIGH + 16 * first, 0, 16);
    regs[REG_RIP] = (greg_t)(intptr_t)code;
}

__attribute__((constructor)) static void install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = execute;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGILL, &action, NULL);
}
