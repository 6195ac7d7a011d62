/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sealing deliveries from the bare keys: key expansion, hash powers, AES-256-CTR and GHASH of four
 * events side by side, so that there is no key schedule to keep. A schedule of ipsec-mb's is 1 KiB
 * that comes from memory, or several hundred cycles to make: either is more than this whole.
 *
 * For CPUs with AVX-512, VAES and VPCLMULQDQ. No state; any thread. No branch and no address
 * depends on a key or on a payload's bytes.
 */
#pragma once

#include <stdint.h>

/*
 * Seals cnt deliveries in place: images[i] is a delivery header and its payload, as long as the
 * header says, keys[i] the 32 bytes of its stream's key (docs/wire-format.md). The tags are
 * written to where they belong.
 */
typedef void kernel_seal_fn(uint8_t *const *images, const uint8_t *const *keys, unsigned cnt);

/* NULL where this CPU lacks what it needs. */
kernel_seal_fn *kernels_seal(void);
