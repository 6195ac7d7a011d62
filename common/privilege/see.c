/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "common/privilege/privilege.h"

static void line_read(struct privilege_seen *seen, const char *line)
{
	unsigned number;

	if (sscanf(line, "Uid: %*u %u", &number) == 1) /* the effective one */
		seen->uid = number;
	else if (sscanf(line, "NoNewPrivs: %u", &number) == 1)
		seen->no_new_privs = number == 1;
	else if (sscanf(line, "Seccomp: %u", &number) == 1)
		seen->filtered = number == 2;
	else if (sscanf(line, "CapEff: %" SCNx64, &seen->effective) != 1 &&
		 sscanf(line, "CapPrm: %" SCNx64, &seen->permitted) != 1)
		sscanf(line, "CapBnd: %" SCNx64, &seen->bounding);
}

int privilege_see(struct privilege_seen *seen, pid_t pid)
{
	char path[32], line[256];
	FILE *status;

	*seen = (struct privilege_seen){.uid = (uid_t)-1};
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	status = fopen(path, "re");
	if (!status)
		return -errno;
	while (fgets(line, sizeof(line), status))
		line_read(seen, line);
	fclose(status);
	return seen->uid == (uid_t)-1 ? -ESRCH : 0;
}
