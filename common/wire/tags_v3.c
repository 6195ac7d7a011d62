/* SPDX-License-Identifier: BSD-3-Clause */
#define TAGS fan_tags_v3

#include "common/wire/tags_code.h"
