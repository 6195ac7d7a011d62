/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/http.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <grp.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "common/privilege/privilege.h"
#include "control/engine/audit.h"
#include "control/engine/door.h"
#include "control/engine/marks.h"
#include "control/engine/request.h"
#include "control/engine/store.h"
#include "control/engine/vouched.h"

#define HEADERS_MAX	16384
#define TIMEOUT_S	30
#define CONNECTIONS_MAX 64

struct http {
	struct engine *engine;
	struct evhttp *server;
	struct door *door;
	char path[FAN_PATH_MAX + 16];
};

static const struct request_route routes[] = {
	{"GET", "/v1/status", {NULL}},
	{"GET", "/v1/doctor", {NULL}},
	{"POST", "/v1/tokens", {"user", "ttl_seconds"}},
	{"POST", "/v1/grants", {"user", "ttl_seconds"}},
	{"POST", "/v1/revocations", {"user"}},
	{"GET", "/v1/publishers", {NULL}},
	{"POST", "/v1/publishers", {"name", "user"}},
	{"DELETE", "/v1/publishers/{name}", {NULL}},
	{"GET", "/v1/connections", {"user", "after", "limit"}},
	{"DELETE", "/v1/connections/{id}", {NULL}},
	{"POST", "/v1/vouched", {NULL}},
	{"GET", "/v1/vouched", {"user", "after", "limit"}},
	{"DELETE", "/v1/vouched", {"id", "user", "batch", "row"}},
	{"GET", "/v1/keys", {NULL}},
	{"POST", "/v1/keys/rotate", {NULL}},
	{"GET", "/v1/explain", {"user", "channel"}},
	{"GET", "/v1/audit", {"limit", "after", "event"}},
	{"GET", "/v1/top", {"limit"}},
};
#define ROUTE_CNT (sizeof(routes) / sizeof(routes[0]))

static const http_handler handlers[] = {
	http_status,	       http_doctor,
	http_token_make,       http_grant_make,
	http_revoke,	       http_publishers_list,
	http_publisher_add,    http_publisher_remove,
	http_connections_list, http_connection_end,
	http_vouched_import,   http_vouched_list,
	http_vouched_remove,   http_keys,
	http_keys_rotate,      http_explain,
	http_audit_list,       http_top,
};
_Static_assert(sizeof(handlers) / sizeof(handlers[0]) == ROUTE_CNT, "each route has its handler");

void http_print_routes(void)
{
	for (size_t i = 0; i < ROUTE_CNT; i++)
		printf("%s %s\n", routes[i].method, routes[i].path);
}

/* ---- answers --------------------------------------------------------------------------------- */

static void call_free(struct http_call *call)
{
	evhttp_clear_headers(&call->query);
	json_decref(call->body);
	json_decref(call->answer);
	free(call->param);
	free(call);
}

static void send_json(struct evhttp_request *request, int status, const json_t *answer)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
	struct evbuffer *buffer = evbuffer_new();
	char *text = json_dumps(answer, JSON_COMPACT | JSON_REAL_PRECISION(15)); /* 58.9 */

	if (buffer && text) {
		evbuffer_add_printf(buffer, "%s\n", text);
		evhttp_add_header(headers, "Content-Type", "application/json");
		evhttp_send_reply(request, status, NULL, buffer);
	} else {
		evhttp_send_error(request, HTTP_INTERNAL, NULL);
	}
	free(text);
	if (buffer)
		evbuffer_free(buffer);
}

static json_t *json_refusal(const char *error, const char *message)
{
	json_t *text = json_string(message);

	/* a message may quote what the caller sent, and be cut within a character */
	return json_pack("{s:s, s:o}", "error", error, "message",
			 text ? text : json_string("the request was refused"));
}

void http_reply(struct http_call *call, int status, json_t *answer)
{
	send_json(call->request, status, answer);
	json_decref(answer);
	call_free(call);
}

void http_refuse(struct http_call *call, int status, const char *error, const char *format, ...)
{
	char message[512];
	va_list args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	http_reply(call, status, json_refusal(error, message));
}

void http_refuse_store(struct http_call *call, int err)
{
	if (err == -ENOSPC)
		http_refuse(call, 507, "disk_full",
			    "the database's disk is full; make room in %s and try again",
			    call->engine->config->state_dir);
	else
		http_refuse(call, 500, "internal",
			    "the database did not take the change: %s; see fanwired's log",
			    store_why(call->engine->store));
}

static void on_durable(void *arg, int status)
{
	struct http_call *call = arg;
	json_t *answer = call->answer;

	if (status) {
		http_refuse_store(call, status);
		return;
	}
	call->answer = NULL;
	http_reply(call, call->status, answer);
}

void http_reply_durable(struct http_call *call, int status, json_t *answer)
{
	call->status = status;
	call->answer = answer;
	store_on_durable(call->engine->store, on_durable, call);
}

static void on_confirmed(void *arg, int status)
{
	struct http_call *call = arg;
	json_t *answer = call->answer;

	if (status) {
		http_refuse(call, 500, "internal",
			    "it was done, but fanwired stops before the agent has confirmed it; "
			    "look at fanwirectl doctor after its next start");
		return;
	}
	call->answer = NULL;
	http_reply(call, call->status, answer);
}

void http_reply_confirmed(struct http_call *call, int status, json_t *answer)
{
	call->status = status;
	call->answer = answer;
	marks_when_done(call->engine->marks, on_confirmed, call);
}

void http_audit(struct http_call *call, const char *event, const char *user, uint64_t connection,
		const char *detail)
{
	struct audit_record record = {.event = event,
				      .user = user,
				      .connection = connection,
				      .uid = call->uid,
				      .detail = detail};

	audit_add(call->engine->audit, &record);
}

json_t *http_json_id(uint64_t id)
{
	char text[17];

	fan_id_format(text, id);
	return json_string(text);
}

json_t *http_json_user(const struct user *user)
{
	json_t *name = user ? json_stringn(user->name, user->name_len) : NULL;

	return name ? name : json_null();
}

/* ---- parameters ------------------------------------------------------------------------------ */

static bool name_ok(struct http_call *call, const char *key, const char *text, size_t len)
{
	json_t *utf8 = json_stringn(text, len);

	json_decref(utf8);
	if (utf8 && len >= 1 && len <= FAN_NAME_MAX)
		return true;
	http_refuse(call, 400, "bad_request", "%s must be UTF-8 text of 1 to 255 bytes", key);
	return false;
}

bool http_body_string(struct http_call *call, const char *key, bool required, const char **text)
{
	const json_t *value = json_object_get(call->body, key);

	*text = NULL;
	if ((!value || json_is_null(value)) && !required)
		return true;
	if (!json_is_string(value)) {
		http_refuse(call, 400, "bad_request", "%s must be there and be a string", key);
		return false;
	}
	if (!name_ok(call, key, json_string_value(value), json_string_length(value)))
		return false;
	*text = json_string_value(value);
	return true;
}

bool http_body_number(struct http_call *call, const char *key, uint64_t least, uint64_t most,
		      uint64_t *number)
{
	const json_t *value = json_object_get(call->body, key);

	if (!value || json_is_null(value))
		return true;
	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
	    (uint64_t)json_integer_value(value) < least ||
	    (uint64_t)json_integer_value(value) > most) {
		http_refuse(call, 400, "bad_request",
			    "%s must be a whole number from %" PRIu64 " to %" PRIu64, key, least,
			    most);
		return false;
	}
	*number = (uint64_t)json_integer_value(value);
	return true;
}

bool http_query_number(struct http_call *call, const char *key, uint64_t least, uint64_t most,
		       uint64_t *number)
{
	const char *text = evhttp_find_header(&call->query, key);
	unsigned long long value;
	char *end;

	if (!text)
		return true;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || *end || text[0] < '0' || text[0] > '9' || value < least || value > most) {
		http_refuse(call, 400, "bad_request",
			    "%s must be a whole number from %" PRIu64 " to %" PRIu64, key, least,
			    most);
		return false;
	}
	*number = value;
	return true;
}

bool http_query_string(struct http_call *call, const char *key, bool required, const char **text)
{
	*text = evhttp_find_header(&call->query, key);
	if (!*text && !required)
		return true;
	if (!*text) {
		http_refuse(call, 400, "bad_request", "the query must have %s=…", key);
		return false;
	}
	return name_ok(call, key, *text, strlen(*text));
}

/* ---- requests -------------------------------------------------------------------------------- */

static const char *method_name(enum evhttp_cmd_type type)
{
	switch (type) {
	case EVHTTP_REQ_GET:
		return "GET";
	case EVHTTP_REQ_POST:
		return "POST";
	case EVHTTP_REQ_DELETE:
		return "DELETE";
	default:
		return "";
	}
}

static uint32_t peer_uid(struct evhttp_request *request)
{
	struct bufferevent *buffer =
		evhttp_connection_get_bufferevent(evhttp_request_get_connection(request));
	struct ucred peer = {.uid = AUDIT_NO_UID};
	socklen_t len = sizeof(peer);

	getsockopt(bufferevent_getfd(buffer), SOL_SOCKET, SO_PEERCRED, &peer, &len);
	return peer.uid;
}

static bool route_call(struct http_call *call, const struct evhttp_uri *uri, size_t *idx)
{
	const char *path = evhttp_uri_get_path(uri);

	switch (request_match(routes, ROUTE_CNT,
			      method_name(evhttp_request_get_command(call->request)),
			      path ? path : "", idx, &call->param, &call->param_len)) {
	case REQUEST_FOUND:
		return true;
	case REQUEST_NO_PATH:
		http_refuse(call, 404, "not_found",
			    "there is no such path; docs/openapi.yaml lists them");
		return false;
	case REQUEST_NO_METHOD:
		http_refuse(call, 405, "method_not_allowed",
			    "this path does not take this method; docs/openapi.yaml lists them");
		return false;
	case REQUEST_BAD_PARAM:
		break;
	}
	http_refuse(call, 400, "bad_request", "the last part of the path cannot be read");
	return false;
}

/* Not 0: the body is lines that the handler reads, and so many bytes at most. */
static size_t raw_body_max(size_t idx)
{
	return handlers[idx] == http_vouched_import ? VOUCHED_BODY_MAX : 0;
}

static bool read_call(struct http_call *call, const struct evhttp_uri *uri, size_t idx)
{
	static const char *const none[REQUEST_KEYS_MAX];
	struct evbuffer *input = evhttp_request_get_input_buffer(call->request);
	bool post = strcmp(routes[idx].method, "POST") == 0;
	size_t len = evbuffer_get_length(input), raw_max = raw_body_max(idx);
	size_t max = raw_max ? raw_max : call->engine->config->http_body_max;
	char why[256];

	if (len > max) {
		http_refuse(call, 413, "too_large",
			    "the body has %zu bytes; at most %zu are read%s", len, max,
			    raw_max ? "; send it in batches" : " (http_body_max)");
		return false;
	}
	if (request_query(evhttp_uri_get_query(uri), post ? none : routes[idx].keys, &call->query,
			  why)) {
		http_refuse(call, 400, "bad_request", "%s", why);
		return false;
	}
	if (raw_max)
		len = 0; /* the handler's own to read */
	call->body = request_body(len ? (const char *)evbuffer_pullup(input, -1) : "", len,
				  post ? routes[idx].keys : none, why);
	if (!call->body) {
		http_refuse(call, 400, "bad_request", "%s", why);
		return false;
	}
	return true;
}

static void on_request(struct evhttp_request *request, void *arg)
{
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
	struct http *http = arg;
	struct http_call *call = calloc(1, sizeof(*call));
	size_t idx;

	if (!call || !uri) {
		evhttp_send_error(request, call ? HTTP_BADREQUEST : HTTP_INTERNAL, NULL);
		free(call);
		return;
	}
	call->engine = http->engine;
	call->request = request;
	call->now = moment_now();
	call->uid = peer_uid(request);
	TAILQ_INIT(&call->query);
	if (route_call(call, uri, &idx) && read_call(call, uri, idx))
		handlers[idx](call);
}

/* ---- the socket ------------------------------------------------------------------------------ */

static int socket_share(const struct http *http)
{
	const char *name = http->engine->config->admin_group;
	const struct group *group = name[0] ? getgrnam(name) : NULL;

	if (!group)
		fan_log(FAN_LOG_INFO, "control",
			"there is no group '%s': only root may use %s; add the group to let others",
			name, http->path);
	/* mode first: afterwards it is not ours */
	if (chmod(http->path, group ? 0660 : 0600) ||
	    chown(http->path, 0, group ? group->gr_gid : 0))
		return -errno;
	return 0;
}

static struct evconnlistener *listen_on(const struct http *http)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct evconnlistener *listener;
	mode_t mask;

	if (strlen(http->path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	strcpy(address.sun_path, http->path);
	unlink(http->path); /* a dead predecessor's: we hold the instance's lock */
	mask = umask(0177);
	listener = evconnlistener_new_bind(http->engine->base, NULL, NULL,
					   LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 64,
					   (struct sockaddr *)&address, sizeof(address));
	umask(mask);
	return listener;
}

int http_open(struct http **out, struct engine *engine, char why[1024])
{
	static const struct door_rules rules = {"control", CONNECTIONS_MAX, 2 * TIMEOUT_S};
	const struct fan_config *config = engine->config;
	struct http *http = calloc(1, sizeof(*http));
	struct evconnlistener *listener;
	uint64_t before;
	int err;

	if (!http)
		return -ENOMEM;
	http->engine = engine;
	if (config->control_socket[0])
		snprintf(http->path, sizeof(http->path), "%s", config->control_socket);
	else
		snprintf(http->path, sizeof(http->path), "%s/control.sock", config->run_dir);
	http->server = evhttp_new(engine->base);
	/* run_dir and the socket are root's */
	before = privilege_raise(PRIVILEGE(CAP_DAC_OVERRIDE) | PRIVILEGE(CAP_CHOWN));
	listener = http->server ? listen_on(http) : NULL;
	err = listener ? socket_share(http) : -errno;
	privilege_lower(before);
	if (listener && !evhttp_bind_listener(http->server, listener)) {
		evconnlistener_free(listener);
		err = -ENOMEM;
	}
	if (!err)
		err = door_open(&http->door, engine->base, http->server, listener, &rules);
	if (err) {
		snprintf(why, 1024, "cannot serve the control API on %s: %s", http->path,
			 strerror(-err));
		http_close(http);
		return err;
	}
	/* a little above what we take, so that most callers get a sentence and not a closed door */
	evhttp_set_max_body_size(http->server,
				 2 * (ssize_t)(config->http_body_max > VOUCHED_BODY_MAX
						       ? config->http_body_max
						       : VOUCHED_BODY_MAX));
	evhttp_set_max_headers_size(http->server, HEADERS_MAX);
	evhttp_set_timeout(http->server, TIMEOUT_S);
	evhttp_set_allowed_methods(http->server, EVHTTP_REQ_GET | EVHTTP_REQ_POST |
							 EVHTTP_REQ_DELETE | EVHTTP_REQ_PUT |
							 EVHTTP_REQ_PATCH | EVHTTP_REQ_HEAD |
							 EVHTTP_REQ_OPTIONS);
	evhttp_set_gencb(http->server, on_request, http);
	*out = http;
	return 0;
}

void http_close(struct http *http)
{
	if (!http)
		return;
	if (http->server) {
		evhttp_free(http->server);
		unlink(http->path);
	}
	door_close(http->door);
	free(http);
}
