/* SPDX-License-Identifier: BSD-3-Clause */
/* What kernels.c hands out where the CPU has it. */
#pragma once

#include "dataplane/kernels/seal.h"

kernel_seal_fn seal_vaes;
