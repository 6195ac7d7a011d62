/* SPDX-License-Identifier: BSD-3-Clause */
#define KERNELS	     kernels_v2
#define KERNELS_NAME "x86-64-v2"
#define KERNELS_TAGS fan_tags_v2

#include "dataplane/kernels/kernel_code.h"
