/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/memif_port.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"

/* The path of a server's socket in the file system; false: there is none. */
static bool server_socket(const char *port, struct sockaddr_un *address)
{
	const char *path = strstr(port, ",socket=");

	if (strncmp(port, "net_memif", strlen("net_memif")) != 0 || !path ||
	    !strstr(port, ",role=server") || !strstr(port, ",socket-abstract=no"))
		return false;
	path += strlen(",socket=");
	address->sun_family = AF_UNIX;
	return snprintf(address->sun_path, sizeof(address->sun_path), "%.*s",
			(int)strcspn(path, ","), path) < (int)sizeof(address->sun_path);
}

static bool somebody_listens(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool refused;

	if (fd < 0)
		return true;
	refused = connect(fd, (const struct sockaddr *)address, sizeof(*address)) &&
		  errno == ECONNREFUSED;
	close(fd);
	return !refused;
}

void memif_port_clear(const struct fan_config *config)
{
	struct sockaddr_un address;
	struct stat st;

	if (!server_socket(config->port, &address) || lstat(address.sun_path, &st) ||
	    !S_ISSOCK(st.st_mode) || somebody_listens(&address))
		return;
	if (unlink(address.sun_path))
		fan_log(FAN_LOG_WARNING, "port", "%s, which nobody listens on, stays: %s",
			address.sun_path, strerror(errno));
}
