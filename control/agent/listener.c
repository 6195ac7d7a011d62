/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/agent/listener.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/privilege/privilege.h"

#define BACKLOG 4096

static int make_address(struct listener *listener, const struct fan_config *config,
			struct sockaddr_un *address, char why[1024])
{
	int len;

	if (config->client_socket[0])
		len = snprintf(listener->path, sizeof(listener->path), "%s", config->client_socket);
	else
		len = snprintf(listener->path, sizeof(listener->path), "%s/client.sock",
			       config->run_dir);
	if (len < 0 || (size_t)len >= sizeof(address->sun_path)) {
		snprintf(why, 1024,
			 "control.client_socket: \"%s\" is longer than the %zu bytes of a UNIX "
			 "socket's path; choose a shorter instance.run_dir or client_socket",
			 listener->path, sizeof(address->sun_path) - 1);
		return -ENAMETOOLONG;
	}
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	memcpy(address->sun_path, listener->path, (size_t)len + 1);
	return 0;
}

/* Whether somebody listens there: 0 nobody, -EADDRINUSE, or another error of the attempt. */
static int ask(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int err;

	if (fd < 0)
		return -errno;
	err = connect(fd, (const struct sockaddr *)address, sizeof(*address)) ? errno : 0;
	close(fd);
	if (err == ECONNREFUSED || err == ENOENT)
		return 0;
	/* EAGAIN: its queue is full; EPROTOTYPE: a socket of another type. Somebody is there. */
	return err == 0 || err == EAGAIN || err == EPROTOTYPE ? -EADDRINUSE : -err;
}

static int remove_stale(const struct sockaddr_un *address, char why[1024])
{
	const char *path = address->sun_path;
	struct stat file;
	int err;

	if (lstat(path, &file))
		return 0; /* not there; bind() names every other trouble */
	if (!S_ISSOCK(file.st_mode)) {
		snprintf(why, 1024, "%s is in the way and is no socket; move it away", path);
		return -EEXIST;
	}
	err = ask(address);
	if (err == -EADDRINUSE) {
		snprintf(
			why, 1024,
			"another fanwired runs here: it answers on %s; stop it first, or give this "
			"instance a run_dir of its own",
			path);
		return err;
	}
	if (!err && unlink(path) && errno != ENOENT)
		err = -errno;
	if (err)
		snprintf(why, 1024, "cannot remove the stale socket %s: %s", path, strerror(-err));
	return err;
}

static int listen_here(struct listener *listener, const struct fan_config *config, char why[1024])
{
	struct sockaddr_un address;
	struct stat file;
	int err;

	listener->fd = -1;
	err = make_address(listener, config, &address, why);
	if (!err)
		err = remove_stale(&address, why);
	if (err)
		return err;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)))
		goto fail;
	/* Nobody can connect before listen(), so nobody meets it with the wrong mode. */
	if (chmod(listener->path, 0666) || lstat(listener->path, &file) || listen(fd, BACKLOG))
		goto fail;
	listener->fd = fd;
	listener->dev = file.st_dev;
	listener->ino = file.st_ino;
	return 0;
fail:
	err = -errno;
	snprintf(why, 1024, "cannot listen on %s: %s; the directory must exist and be writable",
		 listener->path, strerror(-err));
	if (fd >= 0)
		close(fd);
	return err;
}

int listener_open(struct listener *listener, const struct fan_config *config, char why[1024])
{
	uint64_t before = privilege_raise(PRIVILEGE(CAP_DAC_OVERRIDE)); /* run_dir is root's */
	int err = listen_here(listener, config, why);

	privilege_lower(before);
	return err;
}

void listener_close(struct listener *listener)
{
	struct stat file;

	if (listener->fd < 0)
		return;
	if (!lstat(listener->path, &file) && file.st_dev == listener->dev &&
	    file.st_ino == listener->ino)
		unlink(listener->path);
	close(listener->fd);
	listener->fd = -1;
}
