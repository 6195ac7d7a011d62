/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/config/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/config/load.h"

const config_setting_t *loader_where(const struct loader *loader, int idx)
{
	const config_setting_t *root = config_root_setting(&loader->file);

	if (loader->settings[idx])
		return loader->settings[idx];
	return config_setting_get_member(root, config_keys[idx].group);
}

/* Adds a whole line or, where it does not fit, none: half a sentence misleads. */
static void add_line(struct loader *loader, const char *line)
{
	size_t len = strlen(line);
	const size_t reserved = 64; /* for the last line, "and N more" */

	loader->problem_cnt++;
	if (loader->why_len + len + 1 + reserved > CONFIG_WHY_LEN) {
		loader->unsaid_cnt++;
		return;
	}
	memcpy(loader->why + loader->why_len, line, len);
	loader->why_len += len;
	loader->why[loader->why_len++] = '\n';
	loader->why[loader->why_len] = '\0';
}

void loader_problem(struct loader *loader, const config_setting_t *setting, const char *group,
		    const char *name, const char *format, ...)
{
	const char *file = setting ? config_setting_source_file(setting) : NULL;
	unsigned line = setting ? config_setting_source_line(setting) : 1;
	char text[512], whole[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	snprintf(whole, sizeof(whole), "%.300s:%u: %.64s%s%.64s: %s", file ? file : loader->path,
		 line ? line : 1, group, name ? "." : "", name ? name : "", text);
	add_line(loader, whole);
}

/* The text of one line, trimmed, for libconfig's errors: they do not say at what they stumbled. */
static void quote_line(const char *path, int wanted, char *quoted, size_t quoted_len)
{
	FILE *file = fopen(path, "re");
	char line[256];
	size_t end;

	quoted[0] = '\0';
	if (!file)
		return;
	for (int i = 0; i < wanted && fgets(line, sizeof(line), file);) {
		bool whole = strchr(line, '\n') != NULL;
		const char *start = line + strspn(line, " \t");

		if (i + 1 == wanted) {
			for (end = strlen(start); end && isspace((unsigned char)start[end - 1]);)
				end--;
			snprintf(quoted, quoted_len, "%.*s", (int)end, start);
			break;
		}
		i += whole;
	}
	fclose(file);
}

static int read_file(struct loader *loader)
{
	const char *file;
	char quoted[160], line[1024];
	int number;

	if (config_read_file(&loader->file, loader->path) == CONFIG_TRUE)
		return 0;
	if (config_error_type(&loader->file) == CONFIG_ERR_FILE_IO) {
		int rc = errno ? -errno : -EIO;

		snprintf(line, sizeof(line), "%.300s:1: file: cannot be read: %s", loader->path,
			 strerror(-rc));
		add_line(loader, line);
		return rc;
	}
	/* a key that stands twice is libconfig's to find, and it names the line only */
	file = config_error_file(&loader->file) ? config_error_file(&loader->file) : loader->path;
	number = config_error_line(&loader->file);
	quote_line(file, number, quoted, sizeof(quoted));
	if (strcmp(config_error_text(&loader->file), "duplicate setting name") == 0)
		snprintf(line, sizeof(line), "%.300s:%d: %.*s: stands there twice; remove one",
			 file, number, (int)strcspn(quoted, " \t:="), quoted);
	else
		snprintf(line, sizeof(line),
			 "%.300s:%d: syntax: %s at or just before \"%s\"; correct it", file, number,
			 config_error_text(&loader->file), quoted);
	add_line(loader, line);
	return -EINVAL;
}

static void read_group(struct loader *loader, const config_setting_t *group)
{
	const char *group_name = config_setting_name(group);

	if (!config_group_exists(group_name)) {
		loader_problem(
			loader, group, group_name, NULL,
			"unknown; the groups are instance, network, dataplane, limits, times, "
			"scope and control");
		return;
	}
	if (!config_setting_is_group(group)) {
		loader_problem(loader, group, group_name, NULL, "is a group; write %s: { ... };",
			       group_name);
		return;
	}
	for (int i = 0; i < config_setting_length(group); i++) {
		const config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
		const char *name = config_setting_name(setting);
		int idx = config_key_find(group_name, name);

		if (idx < 0) {
			loader_problem(loader, setting, group_name, name,
				       "unknown key; correct its name or remove it");
			continue;
		}
		loader->settings[idx] = setting;
		values_read(loader, idx, setting);
	}
}

static void read_groups(struct loader *loader)
{
	const config_setting_t *root = config_root_setting(&loader->file);

	for (int i = 0; i < config_setting_length(root); i++)
		read_group(loader, config_setting_get_elem(root, (unsigned)i));
}

int fan_config_load(struct fan_config *config, const char *path, char why[4096])
{
	char unwanted[CONFIG_WHY_LEN];
	struct loader loader = {.config = config, .path = path, .why = why ? why : unwanted};
	int rc;

	loader.why[0] = '\0';
	memset(config, 0, sizeof(*config));
	values_default(config);
	config_init(&loader.file);
	rc = read_file(&loader);
	if (rc == 0) {
		read_groups(&loader);
		check_config(&loader);
		rc = loader.problem_cnt ? -EINVAL : 0;
	}
	if (loader.unsaid_cnt)
		snprintf(loader.why + loader.why_len, CONFIG_WHY_LEN - loader.why_len,
			 "and %u more\n", loader.unsaid_cnt);
	config_destroy(&loader.file);
	return rc;
}
