/* SPDX-License-Identifier: BSD-3-Clause */
/* What fanwire-bench-load can send by; fanwire-bench-bypass has another list (load_bypass.c). */
#include "bench/peers/load.h"

const struct transport *const load_transports[] = {
	&transport_udp,	 &transport_fanwire, &transport_redis,
	&transport_nats, &transport_mqtt,    NULL,
};
