/* SPDX-License-Identifier: BSD-3-Clause */
#define KERNELS	     kernels_v3
#define KERNELS_NAME "x86-64-v3"
#define KERNELS_TAGS fan_tags_v3

#include "dataplane/kernels/kernel_code.h"
