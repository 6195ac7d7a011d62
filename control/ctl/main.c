/* SPDX-License-Identifier: BSD-3-Clause */
#include <locale.h>
#include <sodium.h>
#include <stdio.h>

#include "control/ctl/command.h"

int main(int argc, char **argv)
{
	setlocale(LC_CTYPE, "");
	if (sodium_init() < 0) {
		fprintf(stderr, "fanwirectl: libsodium cannot be used on this machine\n");
		return EXIT_REFUSED;
	}
	return command_main(argc, argv);
}
