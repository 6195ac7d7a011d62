/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/ctl/api.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/ctl/output.h"

#define ANSWER_MAX (64 * 1024 * 1024)
#define CALL_MS	   30000

struct answer {
	char *bytes;
	size_t len;
	long http;
	CURLcode code;
	long os_error;
};

static size_t on_bytes(char *bytes, size_t size, size_t cnt, void *arg)
{
	struct answer *answer = arg;
	size_t len = size * cnt;
	char *larger;

	if (answer->len + len > ANSWER_MAX)
		return 0;
	larger = realloc(answer->bytes, answer->len + len + 1);
	if (!larger)
		return 0;
	answer->bytes = larger;
	memcpy(answer->bytes + answer->len, bytes, len);
	answer->len += len;
	return len;
}

static void prepare(const struct ctl *ctl, CURL *curl, const char *method, const char *url)
{
	curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, ctl->socket);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)CALL_MS);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes);
}

/* body: NULL for none. */
static void perform(CURL *curl, const char *type, const char *body, size_t len,
		    struct answer *answer)
{
	char content[64];
	struct curl_slist *headers;

	snprintf(content, sizeof(content), "Content-Type: %s", type);
	headers = curl_slist_append(NULL, content);
	headers = curl_slist_append(headers, "Expect:"); /* the answer is worth waiting for */
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
	if (body) {
		curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len);
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
	}
	answer->code = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer->http);
	curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &answer->os_error);
	curl_slist_free_all(headers);
}

static void explain_transport(const struct ctl *ctl, const struct answer *answer, char *why)
{
	if (answer->code == CURLE_COULDNT_CONNECT && answer->os_error == EACCES)
		snprintf(why, 512,
			 "%s may not be opened: run as root, or join the group fanwire-admin "
			 "(groupadd "
			 "--system fanwire-admin; fanwired takes it up at its next start)",
			 ctl->socket);
	else if (answer->code == CURLE_COULDNT_CONNECT)
		snprintf(why, 512,
			 "fanwired is not running: nothing listens on %s; start it (./dev up, or "
			 "fanwired --config FILE), or name its socket with --socket",
			 ctl->socket);
	else if (answer->code == CURLE_OPERATION_TIMEDOUT)
		snprintf(why, 512, "fanwired did not answer within %d s; see whether it hangs",
			 CALL_MS / 1000);
	else
		snprintf(why, 512, "talking to fanwired on %s failed: %s", ctl->socket,
			 curl_easy_strerror(answer->code));
}

/* The object that was answered, or NULL with error name and sentence. */
static json_t *judge(const struct ctl *ctl, const struct answer *answer, char name[64],
		     char why[512])
{
	json_t *object;
	const char *error, *message;

	snprintf(name, 64, "unreachable");
	if (answer->code != CURLE_OK) {
		explain_transport(ctl, answer, why);
		return NULL;
	}
	object = json_loadb(answer->bytes ? answer->bytes : "", answer->len, 0, NULL);
	if (json_is_object(object) && answer->http >= 200 && answer->http < 300)
		return object;
	error = json_string_value(json_object_get(object, "error"));
	message = json_string_value(json_object_get(object, "message"));
	snprintf(name, 64, "%s", error ? error : "http");
	if (message)
		snprintf(why, 512, "%s", message);
	else
		snprintf(why, 512,
			 "fanwired answered HTTP %ld without a reason; are fanwired and "
			 "fanwirectl of the same version?",
			 answer->http);
	json_decref(object);
	return NULL;
}

static json_t *call(const struct ctl *ctl, const char *method, const char *path,
		    const struct api_query *query, json_t *body, char name[64], char why[512])
{
	CURL *curl = curl_easy_init();
	struct answer answer = {0};
	json_t *object = NULL;
	char url[4096];
	size_t len;

	snprintf(name, 64, "internal");
	snprintf(why, 512, "the request is too long or memory is out");
	len = (size_t)snprintf(url, sizeof(url), "http://fanwired%s", path);
	for (char mark = '?'; curl && query && query->value && len < sizeof(url); query++) {
		char *value = curl_easy_escape(curl, query->value, 0);

		if (query->name)
			len += (size_t)snprintf(url + len, sizeof(url) - len, "%c%s=%s", mark,
						query->name, value ? value : "");
		else
			len += (size_t)snprintf(url + len, sizeof(url) - len, "/%s",
						value ? value : "");
		mark = query->name ? '&' : mark;
		curl_free(value);
	}
	if (curl && len < sizeof(url)) {
		char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;

		prepare(ctl, curl, method, url);
		perform(curl, "application/json", text, text ? strlen(text) : 0, &answer);
		object = judge(ctl, &answer, name, why);
		free(text);
	}
	free(answer.bytes);
	curl_easy_cleanup(curl);
	json_decref(body);
	return object;
}

json_t *api_call(const struct ctl *ctl, const char *method, const char *path,
		 const struct api_query *query, json_t *body)
{
	char name[64], why[512];
	json_t *object = call(ctl, method, path, query, body, name, why);

	if (!object)
		output_error(ctl, name, "%s", why);
	return object;
}

json_t *api_try(const struct ctl *ctl, const char *method, const char *path,
		const struct api_query *query, json_t *body, char why[512])
{
	char name[64];

	return call(ctl, method, path, query, body, name, why);
}

struct api_stream {
	const struct ctl *ctl;
	CURL *curl;
};

struct api_stream *api_stream_open(const struct ctl *ctl, const char *path)
{
	struct api_stream *stream = calloc(1, sizeof(*stream));
	char url[256];

	if (!stream)
		return NULL;
	stream->ctl = ctl;
	stream->curl = curl_easy_init();
	if (!stream->curl) {
		free(stream);
		return NULL;
	}
	snprintf(url, sizeof(url), "http://fanwired%s", path);
	prepare(ctl, stream->curl, "POST", url);
	return stream;
}

json_t *api_stream_post(struct api_stream *stream, const char *bytes, size_t len, char name[64],
			char why[512])
{
	struct answer answer = {0};
	json_t *object;

	perform(stream->curl, "application/x-ndjson", bytes, len, &answer);
	object = judge(stream->ctl, &answer, name, why);
	free(answer.bytes);
	return object;
}

void api_stream_close(struct api_stream *stream)
{
	if (stream)
		curl_easy_cleanup(stream->curl);
	free(stream);
}
