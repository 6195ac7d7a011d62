/* SPDX-License-Identifier: BSD-3-Clause */
#define KERNELS	     kernels_v4
#define KERNELS_NAME "x86-64-v4"
#define KERNELS_TAGS fan_tags_v4

#include "dataplane/kernels/kernel_code.h"
