/* SPDX-License-Identifier: BSD-3-Clause */
#define TAGS fan_tags_v4

#include "common/wire/tags_code.h"
