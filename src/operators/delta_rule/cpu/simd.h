#pragma once

// The instruction sets the CPU code is compiled for, once each: the compiler's default (on x86-64 scalar code or
// EMU128, NEON on Arm), AVX2 + FMA, AVX-512. Highway would add more; each costs compile time and gains little here.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
