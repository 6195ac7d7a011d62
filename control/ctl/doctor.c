/* SPDX-License-Identifier: BSD-3-Clause */
/* What fanwirectl sees of the machine itself, then what fanwired sees (GET /v1/doctor). */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/ctl/api.h"
#include "control/ctl/output.h"

struct doctor {
	const struct ctl *ctl;
	json_t *findings;
	const json_t *control; /* of /v1/status; NULL: fanwired cannot be reached */
};

static void find(struct doctor *doctor, const char *check, bool ok, const char *otherwise,
		 const char *advice, const char *format, ...) __attribute__((format(printf, 6, 7)));

/* State "ok", or `otherwise` ("warning" or "failed") with advice. */
static void find(struct doctor *doctor, const char *check, bool ok, const char *otherwise,
		 const char *advice, const char *format, ...)
{
	char found[512];
	va_list args;

	va_start(args, format);
	vsnprintf(found, sizeof(found), format, args);
	va_end(args);
	json_array_append_new(doctor->findings, json_pack("{s:s, s:s, s:s, s:s}", "check", check,
							  "state", ok ? "ok" : otherwise, "found",
							  found, "advice", ok ? "" : advice));
}

/* First line of a small file; false: there is none. */
static bool read_line(const char *path, char *line, size_t room)
{
	FILE *file = fopen(path, "re");
	bool read = file && fgets(line, (int)room, file);

	if (file)
		fclose(file);
	if (read)
		line[strcspn(line, "\n")] = 0;
	return read;
}

/* ---- machine --------------------------------------------------------------------------------- */

static void check_user(struct doctor *doctor)
{
	find(doctor, "user", geteuid() == 0, "warning",
	     "run it as root: some of what it looks at is root's alone", "running as uid %d",
	     (int)geteuid());
}

static void check_kernel(struct doctor *doctor)
{
	bool btf = access("/sys/kernel/btf/vmlinux", R_OK) == 0;
	char jit[16] = "?";

	find(doctor, "kernel_btf", btf, "failed",
	     "use a kernel with CONFIG_DEBUG_INFO_BTF=y, as Debian's is",
	     "/sys/kernel/btf/vmlinux %s", btf ? "is there" : "is missing");
	if (read_line("/proc/sys/net/core/bpf_jit_enable", jit, sizeof(jit)))
		find(doctor, "bpf_jit", *jit != '0', "warning",
		     "sysctl net.core.bpf_jit_enable=1: the filter runs several times faster",
		     "net.core.bpf_jit_enable is %s", jit);
}

static void check_cgroup(struct doctor *doctor)
{
	char device[256], where[256] = "", type[64];
	FILE *mounts = fopen("/proc/mounts", "re");
	bool there = false;

	while (mounts && !there &&
	       fscanf(mounts, "%255s %255s %63s %*[^\n]", device, where, type) == 3)
		there = strcmp(type, "cgroup2") == 0;
	if (mounts)
		fclose(mounts);
	find(doctor, "cgroup_v2", there, "failed",
	     "mount -t cgroup2 none /sys/fs/cgroup/unified: the port guard is attached there",
	     "%s%s", there ? "mounted at " : "no cgroup v2 is mounted", there ? where : "");
}

static void check_hugepages(struct doctor *doctor)
{
	FILE *meminfo = fopen("/proc/meminfo", "re");
	long total = 0, unused = 0;
	char line[128];

	while (meminfo && fgets(line, sizeof(line), meminfo)) {
		sscanf(line, "HugePages_Total: %ld", &total);
		sscanf(line, "HugePages_Free: %ld", &unused);
	}
	if (meminfo)
		fclose(meminfo);
	if (json_is_false(json_object_get(doctor->control, "huge_pages"))) {
		find(doctor, "huge_pages", false, "warning",
		     "free memory, then ./dev down and ./dev up; elsewhere "
		     "dataplane.huge_pages = true and region_dir on a hugetlbfs: it is faster",
		     "this instance runs without (%ld on the machine, %ld of them free)", total,
		     unused);
		return;
	}
	find(doctor, "huge_pages", total > 0, "warning",
	     "sysctl vm.nr_hugepages=192: without them the dataplane is slower",
	     "%ld huge pages, %ld of them free", total, unused);
}

/* ---- sockets and versions -------------------------------------------------------------------- */

static void check_socket(struct doctor *doctor, const char *check, const char *path, int type)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool ok, refused;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	ok = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
	refused = !ok && errno == EACCES;
	find(doctor, check, ok, "failed",
	     refused ? "run as root, or join the group fanwire-admin (groupadd --system "
		       "fanwire-admin; fanwired takes it up at its next start)"
		     : "start fanwired (./dev up, or fanwired --config FILE), or name the socket "
		       "with "
		       "--socket and --client-socket",
	     "%s: %s", path, ok ? "answers" : strerror(errno));
	if (fd >= 0)
		close(fd);
}

static void check_version(struct doctor *doctor)
{
	const char *version = json_string_value(json_object_get(doctor->control, "version"));

	if (!doctor->control)
		return;
	find(doctor, "version", version && strcmp(version, FAN_VERSION) == 0, "warning",
	     "restart fanwired after an upgrade, or use the fanwirectl that came with it",
	     "fanwired is %s, fanwirectl %s", version ? version : "unknown", FAN_VERSION);
}

/* ---- network --------------------------------------------------------------------------------- */

static bool overlaps(long first, long last, long other_first, long other_last)
{
	return first <= other_last && other_first <= last;
}

/* Whether ip_local_reserved_ports ("20000-23999,30000") has the whole range. */
static bool reserved(const char *list, long first, long last)
{
	for (const char *part = list; part && *part; part = strchr(part, ',')) {
		long from, to;
		int cnt;

		part += *part == ',';
		cnt = sscanf(part, "%ld-%ld", &from, &to);
		if (cnt >= 1 && from <= first && (cnt == 2 ? to : from) >= last)
			return true;
	}
	return false;
}

/* Inside the receivers' namespace, since these settings are a namespace's own. */
static void check_ports_here(struct doctor *doctor, long first, long last)
{
	char range[64] = "", list[4096] = "";
	long from = 0, to = 0;

	if (!read_line("/proc/sys/net/ipv4/ip_local_port_range", range, sizeof(range)) ||
	    sscanf(range, "%ld %ld", &from, &to) != 2)
		return;
	read_line("/proc/sys/net/ipv4/ip_local_reserved_ports", list, sizeof(list));
	find(doctor, "port_range", !overlaps(first, last, from, to) || reserved(list, first, last),
	     "failed",
	     "reserve the ports: sysctl net.ipv4.ip_local_reserved_ports=FIRST-LAST in the "
	     "receivers' namespace",
	     "scoped sockets have %ld to %ld, the kernel gives out %ld to %ld, reserved: %s", first,
	     last, from, to, *list ? list : "none");
}

static void check_ports(struct doctor *doctor)
{
	const char *netns = json_string_value(json_object_get(doctor->control, "receiver_netns"));
	long first = (long)json_integer_value(json_object_get(doctor->control, "port_first"));
	long last = (long)json_integer_value(json_object_get(doctor->control, "port_last"));
	int own, theirs;

	if (!doctor->control)
		return;
	if (!netns || !*netns) {
		check_ports_here(doctor, first, last);
		return;
	}
	own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	theirs = open(netns, O_RDONLY | O_CLOEXEC);
	find(doctor, "receiver_netns", theirs >= 0, "failed",
	     "make the namespace (./dev up, or ip netns add NAME) and restart fanwired", "%s: %s",
	     netns, theirs >= 0 ? "is there" : strerror(errno));
	if (own >= 0 && theirs >= 0 && setns(theirs, CLONE_NEWNET) == 0) {
		check_ports_here(doctor, first, last);
		if (setns(own, CLONE_NEWNET) < 0)
			output_error(doctor->ctl, "netns",
				     "cannot leave the receivers' namespace: %s", strerror(errno));
	}
	if (own >= 0)
		close(own);
	if (theirs >= 0)
		close(theirs);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void add_theirs(struct doctor *doctor)
{
	char why[512];
	json_t *answer = api_try(doctor->ctl, "GET", "/v1/doctor", NULL, NULL, why);

	if (answer)
		json_array_extend(doctor->findings, json_object_get(answer, "findings"));
	else
		find(doctor, "fanwired", false, "failed", "see why it does not answer", "%s", why);
	json_decref(answer);
}

static void print_finding(const json_t *finding)
{
	static const char *const keys[] = {"state", "check", "found", "advice"};
	char *texts[4];

	for (unsigned i = 0; i < 4; i++) {
		const char *text = json_string_value(json_object_get(finding, keys[i]));

		texts[i] = output_escape(text ? text : "", text ? strlen(text) : 0);
	}
	printf("%-8s %s: %s\n", texts[0], texts[1], texts[2]);
	if (*texts[3])
		printf("%-8s -> %s\n", "", texts[3]);
	for (unsigned i = 0; i < 4; i++)
		free(texts[i]);
}

static int print_findings(const struct doctor *doctor)
{
	int status = EXIT_DONE;

	for (size_t i = 0; i < json_array_size(doctor->findings); i++) {
		const json_t *finding = json_array_get(doctor->findings, i);
		const char *state = json_string_value(json_object_get(finding, "state"));

		if (!state || strcmp(state, "failed") == 0)
			status = EXIT_REFUSED;
		if (doctor->ctl->json)
			output_json(finding);
		else
			print_finding(finding);
	}
	return status;
}

int run_doctor(const struct ctl *ctl, const struct arguments *arguments)
{
	struct doctor doctor = {.ctl = ctl, .findings = json_array()};
	char why[512];
	json_t *status = api_try(ctl, "GET", "/v1/status", NULL, NULL, why);
	int verdict;

	doctor.control = json_object_get(status, "control");
	check_user(&doctor);
	check_kernel(&doctor);
	check_cgroup(&doctor);
	check_hugepages(&doctor);
	check_socket(&doctor, "control_socket", ctl->socket, SOCK_STREAM);
	check_socket(&doctor, "client_socket", ctl->client_socket, SOCK_SEQPACKET);
	check_version(&doctor);
	check_ports(&doctor);
	add_theirs(&doctor);
	verdict = print_findings(&doctor);
	json_decref(doctor.findings);
	json_decref(status);
	return verdict;
}
