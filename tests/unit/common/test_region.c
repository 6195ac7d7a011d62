/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/shm/region.h"

#define MAGIC	   UINT64_C(0x7465737474657374)
#define HEADER_LEN 128u
#define SIZE	   8192u

static char dir[] = "/dev/shm/fan-region-XXXXXX";
static char path[64], why[256];

static void init(void)
{
	cr_assert_not_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/region", dir);
}

static void fini(void)
{
	unlink(path);
	rmdir(dir);
}
TestSuite(region, .init = init, .fini = fini);

static struct fan_region make(bool ready)
{
	struct fan_region region;

	cr_assert_eq(fan_region_create(&region, path, MAGIC, HEADER_LEN, SIZE, why), 0, "%s", why);
	if (ready)
		fan_region_set_ready(&region);
	return region;
}

static int try_read(void)
{
	struct fan_region region;
	int rc = fan_region_open_reader(&region, path, MAGIC, HEADER_LEN, why);

	if (rc == 0)
		fan_region_close(&region);
	return rc;
}

static int try_write(void)
{
	struct fan_region region;
	int rc = fan_region_open_writer(&region, path, MAGIC, HEADER_LEN, why);

	if (rc == 0)
		fan_region_close(&region);
	return rc;
}

Test(region, what_is_written_is_read)
{
	struct fan_region writer = make(false), reader;
	const struct fan_region_header *header = writer.base;
	struct stat st;

	cr_expect_eq(header->magic, MAGIC);
	cr_expect_eq(header->abi, FAN_REGION_ABI);
	cr_expect_eq(header->header_len, HEADER_LEN);
	cr_expect_eq(header->size, SIZE);
	cr_expect_neq(header->creation_epoch, 0);
	cr_expect_eq(header->ready, 0);
	for (size_t i = sizeof(*header); i < SIZE; i++)
		cr_assert_eq(((uint8_t *)writer.base)[i], 0);
	cr_assert_eq(stat(path, &st), 0);
	cr_expect_eq(st.st_mode & 07777, 0640); /* who may read it, the group says */

	((uint8_t *)writer.base)[SIZE - 1] = 42;
	fan_region_set_ready(&writer);
	cr_assert_eq(fan_region_open_reader(&reader, path, MAGIC, HEADER_LEN, why), 0, "%s", why);
	cr_expect_eq(reader.size, SIZE);
	cr_expect_eq(((const uint8_t *)reader.base)[SIZE - 1], 42);
	((uint8_t *)writer.base)[SIZE - 1] = 43;
	cr_expect_eq(((const uint8_t *)reader.base)[SIZE - 1], 43);
	fan_region_close(&reader);
	fan_region_close(&writer);
	cr_expect_null(writer.base);
	fan_region_close(&writer); /* harmless */
}

Test(region, reader_cannot_write)
{
	struct fan_region writer = make(true), reader;
	int status;
	pid_t pid;

	cr_assert_eq(fan_region_open_reader(&reader, path, MAGIC, HEADER_LEN, why), 0);
	pid = fork();
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL); /* a sanitizer's handler would end it in its own way */
		*(volatile uint8_t *)reader.base = 1;
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status %x", status);
	fan_region_close(&reader);
	fan_region_close(&writer);
}

Test(region, creation_replaces_nothing)
{
	struct fan_region first = make(true), second;

	cr_expect_eq(fan_region_create(&second, path, MAGIC, HEADER_LEN, SIZE, why), -EEXIST);
	cr_expect(strstr(why, path), "%s", why);
	cr_expect(fan_region_is_current(&first));
	fan_region_close(&first);
	cr_expect_eq(fan_region_create(&second, path, MAGIC, HEADER_LEN, SIZE, why), -EEXIST);
}

Test(region, two_creations_differ)
{
	struct fan_region region = make(true);
	uint64_t epoch = ((struct fan_region_header *)region.base)->creation_epoch;

	fan_region_close(&region);
	unlink(path);
	region = make(true);
	cr_expect_neq(((struct fan_region_header *)region.base)->creation_epoch, epoch);
	fan_region_close(&region);
}

Test(region, no_file)
{
	cr_expect_eq(try_read(), -ENOENT);
	cr_expect_eq(try_write(), -ENOENT);
	cr_expect(strstr(why, path), "%s", why);
	cr_expect_eq(fan_region_open_reader(&(struct fan_region){}, path, MAGIC, HEADER_LEN, NULL),
		     -ENOENT, "why may be NULL");
}

Test(region, root_that_does_not_fit)
{
	struct fan_region region;

	cr_expect_eq(fan_region_create(&region, path, MAGIC, HEADER_LEN, 64, why), -EINVAL);
	cr_expect_eq(fan_region_create(&region, path, MAGIC, 32, SIZE, why), -EINVAL);
	cr_expect_eq(access(path, F_OK), -1);
}

Test(region, unfinished_is_refused)
{
	struct fan_region region = make(false);

	cr_expect_eq(try_read(), -ENODATA);
	cr_expect(strstr(why, "still being made"), "%s", why);
	fan_region_close(&region);
	cr_expect_eq(try_read(), -ENODATA);
	cr_expect(strstr(why, "died"), "%s", why);
	cr_expect_eq(try_write(), -ENODATA);
}

Test(region, other_layouts_are_refused)
{
	struct fan_region region = make(true);
	struct fan_region_header *header = region.base, good = *header;

	cr_expect_eq(fan_region_open_reader(&region, path, MAGIC + 1, HEADER_LEN, why), -EPROTO);
	cr_expect_eq(fan_region_open_reader(&region, path, MAGIC, HEADER_LEN + 64, why), -EPROTO);
	cr_expect(strstr(why, "192"), "%s", why);
	header->abi++;
	cr_expect_eq(try_read(), -EPROTO);
	cr_expect(strstr(why, "ABI"), "%s", why);
	*header = good;
	header->creation_epoch = 0;
	cr_expect_eq(try_read(), -EPROTO);
	*header = good;
	header->size = SIZE - 64;
	cr_expect_eq(try_read(), -EPROTO);
	header->size = UINT64_MAX;
	cr_expect_eq(try_read(), -ENODATA);
	*header = good;
	cr_expect_eq(try_read(), 0, "%s", why);
}

Test(region, truncated_is_refused)
{
	static const off_t sizes[] = {SIZE - 1, 4096, HEADER_LEN, HEADER_LEN - 1, 1, 0};
	struct fan_region region = make(true);

	fan_region_close(&region);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		cr_assert_eq(truncate(path, sizes[i]), 0);
		cr_expect_eq(try_read(), -ENODATA, "%lld bytes", (long long)sizes[i]);
		cr_expect_eq(try_write(), -ENODATA, "%lld bytes", (long long)sizes[i]);
	}
}

Test(region, one_writer)
{
	struct fan_region writer = make(true), reader;

	cr_expect_eq(try_write(), -EBUSY);
	cr_expect(strstr(why, "another process"), "%s", why);
	cr_assert_eq(fan_region_open_reader(&reader, path, MAGIC, HEADER_LEN, why), 0);
	cr_expect(fan_region_writer_alive(&writer));
	cr_expect(fan_region_writer_alive(&reader));
	fan_region_close(&writer);
	cr_expect_not(fan_region_writer_alive(&reader));
	cr_assert_eq(fan_region_open_writer(&writer, path, MAGIC, HEADER_LEN, why), 0, "%s", why);
	cr_expect(fan_region_writer_alive(&reader));
	fan_region_close(&writer);
	fan_region_close(&reader);
}

/* A child that takes the region over, says so, and holds it until it is killed. */
static pid_t start_writer(bool create)
{
	int pipe_fd[2];
	char byte;
	pid_t pid;

	cr_assert_eq(pipe(pipe_fd), 0);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody behind */
		struct fan_region region;
		int rc = create ? fan_region_create(&region, path, MAGIC, HEADER_LEN, SIZE, NULL)
				: fan_region_open_writer(&region, path, MAGIC, HEADER_LEN, NULL);

		if (rc < 0)
			_exit(1);
		fan_region_set_ready(&region);
		if (write(pipe_fd[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(pipe_fd[1]);
	cr_assert_eq(read(pipe_fd[0], &byte, 1), 1, "the child has no region");
	close(pipe_fd[0]);
	return pid;
}

static void kill_writer(pid_t pid)
{
	cr_assert_eq(kill(pid, SIGKILL), 0);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
}

Test(region, killed_writer_is_dead_and_its_region_lives)
{
	pid_t pid = start_writer(true);
	struct fan_region reader, writer;
	uint64_t epoch;

	cr_assert_eq(fan_region_open_reader(&reader, path, MAGIC, HEADER_LEN, why), 0, "%s", why);
	epoch = ((const struct fan_region_header *)reader.base)->creation_epoch;
	cr_expect(fan_region_writer_alive(&reader));
	cr_expect_eq(try_write(), -EBUSY);
	cr_assert_eq(kill(pid, SIGSTOP), 0);
	cr_expect(fan_region_writer_alive(&reader), "stopped is not dead");
	kill_writer(pid);
	cr_expect_not(fan_region_writer_alive(&reader));
	cr_expect(fan_region_is_current(&reader));

	pid = start_writer(false);
	cr_expect(fan_region_writer_alive(&reader));
	kill_writer(pid);
	cr_assert_eq(fan_region_open_writer(&writer, path, MAGIC, HEADER_LEN, why), 0, "%s", why);
	cr_expect_eq(((struct fan_region_header *)writer.base)->creation_epoch, epoch);
	fan_region_close(&writer);
	fan_region_close(&reader);
}

Test(region, deleted_and_made_anew_is_another)
{
	struct fan_region old = make(true), new;

	cr_expect(fan_region_is_current(&old));
	unlink(path);
	cr_expect_not(fan_region_is_current(&old));
	new = make(true);
	cr_expect_not(fan_region_is_current(&old));
	cr_expect(fan_region_is_current(&new));
	fan_region_close(&old);
	fan_region_close(&new);
}

/* As if it had been replaced between the opening of the path and the lock. */
Test(region, nameless_file_is_not_taken_over)
{
	struct fan_region region = make(true), other;
	char self[32];

	cr_assert_eq(unlink(path), 0);
	snprintf(self, sizeof(self), "/proc/self/fd/%d", region.fd);
	cr_expect_eq(fan_region_open_reader(&other, self, MAGIC, HEADER_LEN, why), -ENOENT);
	cr_expect(strstr(why, "deleted"), "%s", why);
	fan_region_close(&region);
}

Test(region, directory_that_is_not_there)
{
	struct fan_region region;

	cr_expect_eq(fan_region_create(&region, "/nonexistent/x", MAGIC, HEADER_LEN, SIZE, why),
		     -ENOENT);
	cr_expect(strstr(why, "region_dir"), "%s", why);
}

/* A file system of the test's own, in a mount namespace that ends with the test. Needs root. */
static void mount_own(const char *type, const char *options)
{
	if (geteuid() != 0)
		cr_skip_test("needs root to mount a %s", type);
	cr_assert_eq(unshare(CLONE_NEWNS), 0);
	cr_assert_eq(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	cr_assert_eq(mount("none", dir, type, 0, options), 0, "%s: %s", type, strerror(errno));
}

Test(region, full_tmpfs_is_an_error_now_and_no_signal_later)
{
	struct fan_region region;

	mount_own("tmpfs", "size=64k");
	cr_expect_eq(fan_region_create(&region, path, MAGIC, HEADER_LEN, 1 << 20, why), -ENOSPC);
	cr_expect(strstr(why, "1024 KiB"), "%s", why);
	cr_expect_eq(access(path, F_OK), -1, "nothing is left behind");
	cr_expect_eq(fan_region_create(&region, path, MAGIC, HEADER_LEN, 32768, why), 0, "%s", why);
	fan_region_close(&region);
	unlink(path);
	umount(dir);
}

Test(region, too_few_huge_pages_is_an_error_now_and_no_signal_later)
{
	struct fan_region region;

	mount_own("hugetlbfs", "pagesize=2M,size=0");
	cr_expect_eq(fan_region_create(&region, path, MAGIC, HEADER_LEN, SIZE, why), -ENOMEM, "%s",
		     why);
	cr_expect(strstr(why, "vm.nr_hugepages"), "%s", why);
	cr_expect_eq(access(path, F_OK), -1, "nothing is left behind");
	umount(dir);
}

static long free_huge_pages(void)
{
	FILE *file = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "re");
	long cnt = 0;

	if (file) {
		if (fscanf(file, "%ld", &cnt) != 1)
			cnt = 0;
		fclose(file);
	}
	return cnt;
}

Test(region, huge_pages_round_the_size_up)
{
	struct fan_region region, reader;

	if (free_huge_pages() < 2)
		cr_skip_test("needs two free huge pages");
	mount_own("hugetlbfs", "pagesize=2M,size=4M");
	cr_assert_eq(fan_region_create(&region, path, MAGIC, HEADER_LEN, (2 << 20) + 1, why), 0,
		     "%s", why);
	cr_expect_eq(region.size, 4 << 20);
	cr_expect_eq(((struct fan_region_header *)region.base)->size, 4 << 20);
	memset((char *)region.base + HEADER_LEN, 1, region.size - HEADER_LEN);
	fan_region_set_ready(&region);
	cr_assert_eq(fan_region_open_reader(&reader, path, MAGIC, HEADER_LEN, why), 0, "%s", why);
	cr_expect(fan_region_writer_alive(&reader));
	cr_expect_eq(try_write(), -EBUSY);
	fan_region_close(&region);
	cr_expect_not(fan_region_writer_alive(&reader));
	fan_region_close(&reader);
	unlink(path);
	umount(dir);
}
