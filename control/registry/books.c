/* SPDX-License-Identifier: BSD-3-Clause */
/* Private memory: indices, lists and free stacks. Sized at open, so that no change allocates. */
#include <errno.h>
#include <string.h>

#include "common/wire/wire.h"
#include "control/registry/big.h"
#include "control/registry/internal.h"

uint32_t stack_pop(struct stack *stack)
{
	if (stack->cnt)
		return stack->items[--stack->cnt];
	return stack->fresh < stack->fresh_end ? stack->fresh++ : NONE;
}

void stack_push(struct stack *stack, uint32_t idx)
{
	stack->items[stack->cnt++] = idx;
}

uint64_t id_hash(const struct registry *r, uint64_t id)
{
	return fan_mix(id ^ r->index_seed[0], r->index_seed[1] ^ UINT64_C(0x9e3779b97f4a7c15));
}

static uint64_t handle_hash(const struct registry *r, const uint8_t handle[16])
{
	return fan_table_hash(r->index_seed, handle, FAN_CHANNEL_ALL);
}

static bool same_id(const void *owner, uint32_t connection, const void *key)
{
	const struct registry *r = owner;

	return r->connections[connection].id == *(const uint64_t *)key;
}

static bool same_handle(const void *owner, uint32_t user, const void *key)
{
	const struct registry *r = owner;

	return memcmp(r->users[user].handle, key, 16) == 0;
}

uint32_t connection_find(const struct registry *r, uint64_t id)
{
	return index_get(&r->ids, id_hash(r, id), &id);
}

uint32_t user_find(const struct registry *r, const uint8_t handle[16])
{
	return index_get(&r->handles, handle_hash(r, handle), handle);
}

void ids_add(struct registry *r, uint32_t connection)
{
	index_add(&r->ids, id_hash(r, r->connections[connection].id), connection);
}

void ids_del(struct registry *r, uint32_t connection)
{
	index_del(&r->ids, id_hash(r, r->connections[connection].id), connection);
}

/* There are as many user records as connections and groups, so one is always free. */
static uint32_t user_get(struct registry *r, const uint8_t handle[16])
{
	uint32_t user = user_find(r, handle);

	if (user != NONE)
		return user;
	user = stack_pop(&r->free_users);
	r->users[user] = (struct user){
		.connections = NONE, .groups = NONE, .ending = NONE, .lingering = {NONE, NONE}};
	memcpy(r->users[user].handle, handle, 16);
	index_add(&r->handles, handle_hash(r, handle), user);
	return user;
}

static void user_put(struct registry *r, uint32_t user)
{
	const struct user *u = &r->users[user];

	if (u->connections != NONE || u->groups != NONE || u->ending != NONE)
		return;
	index_del(&r->handles, handle_hash(r, u->handle), user);
	stack_push(&r->free_users, user);
}

static void list_push(struct registry *r, uint32_t *head, uint32_t connection, uint32_t user)
{
	r->connection_books[connection].link =
		(struct link){.user = user, .prev = NONE, .next = *head};
	if (*head != NONE)
		r->connection_books[*head].link.prev = connection;
	*head = connection;
}

static void list_remove(struct registry *r, uint32_t *head, uint32_t connection)
{
	const struct link *link = &r->connection_books[connection].link;

	if (link->next != NONE)
		r->connection_books[link->next].link.prev = link->prev;
	if (link->prev != NONE)
		r->connection_books[link->prev].link.next = link->next;
	else
		*head = link->next;
}

void user_prefetch(const struct registry *r, const uint8_t handle[16])
{
	index_prefetch(&r->handles, handle_hash(r, handle));
}

void user_link_connection(struct registry *r, uint32_t connection, const uint8_t handle[16])
{
	user_link_known(r, connection, user_get(r, handle));
}

void user_link_known(struct registry *r, uint32_t connection, uint32_t user)
{
	struct user *u = &r->users[user];

	list_push(r, &u->connections, connection, user);
	if (u->connection_cnt++ == 0)
		r->counts.users++;
}

void user_unlink_connection(struct registry *r, uint32_t connection)
{
	uint32_t user = r->connection_books[connection].link.user;
	struct user *u = &r->users[user];

	list_remove(r, &u->connections, connection);
	if (--u->connection_cnt == 0)
		r->counts.users--;
	user_link_ending(r, connection, user);
}

void user_link_ending(struct registry *r, uint32_t connection, uint32_t user)
{
	list_push(r, &r->users[user].ending, connection, user);
}

void user_unlink_ending(struct registry *r, uint32_t connection)
{
	struct link *link = &r->connection_books[connection].link;
	uint32_t user = link->user;

	if (user == NONE)
		return;
	list_remove(r, &r->users[user].ending, connection);
	link->user = NONE;
	user_put(r, user);
}

void user_link_group(struct registry *r, uint32_t group)
{
	uint32_t user = user_get(r, r->groups[group].handle);
	struct user *u = &r->users[user];

	r->group_links[group] = (struct link){.user = user, .prev = NONE, .next = u->groups};
	if (u->groups != NONE)
		r->group_links[u->groups].prev = group;
	u->groups = group;
	u->group_cnt++;
	r->counts.groups++;
}

void user_unlink_group(struct registry *r, uint32_t group)
{
	struct link *link = &r->group_links[group];
	struct user *u = &r->users[link->user];

	if (link->next != NONE)
		r->group_links[link->next].prev = link->prev;
	if (link->prev != NONE)
		r->group_links[link->prev].next = link->next;
	else
		u->groups = link->next;
	u->group_cnt--;
	r->counts.groups--;
	user_put(r, link->user);
}

/* As many memberships as endpoints: one is free wherever an endpoint was. */
void membership_add(struct registry *r, uint32_t connection, uint32_t group)
{
	uint32_t m = stack_pop(&r->free_memberships);

	r->memberships[m].group = group;
	r->memberships[m].next = r->connection_books[connection].memberships;
	r->connection_books[connection].memberships = m;
}

void membership_del(struct registry *r, uint32_t connection, uint32_t group)
{
	uint32_t *at = &r->connection_books[connection].memberships;

	for (; *at != NONE; at = &r->memberships[*at].next) {
		uint32_t m = *at;

		if (r->memberships[m].group != group)
			continue;
		*at = r->memberships[m].next;
		stack_push(&r->free_memberships, m);
		return;
	}
}

bool membership_has(const struct registry *r, uint32_t connection, uint32_t group)
{
	uint32_t m = r->connection_books[connection].memberships;

	while (m != NONE && r->memberships[m].group != group)
		m = r->memberships[m].next;
	return m != NONE;
}

bool stack_init(struct stack *stack, uint32_t max)
{
	*stack = (struct stack){.max = max};
	stack->items = big_calloc(max, sizeof(*stack->items));
	return stack->items != NULL;
}

static bool stack_init_full(struct stack *stack, uint32_t max)
{
	bool done = stack_init(stack, max);

	stack->fresh_end = max;
	return done;
}

void stack_fini(struct stack *stack)
{
	big_free(stack->items, stack->max, sizeof(*stack->items));
	*stack = (struct stack){0};
}

/* A user is of a connection or a group at least; in the most likely case all of his are ALL's. */
static uint32_t user_cnt_max(const struct registry *r)
{
	return r->root->connection_cnt + r->root->group_cnt;
}

static bool stacks_init(struct registry *r)
{
	const struct fan_registry *root = r->root;

	return stack_init_full(&r->free_users, user_cnt_max(r)) &&
	       stack_init_full(&r->free_memberships, root->endpoint_cnt) &&
	       stack_init(&r->free_connections, root->connection_cnt) &&
	       stack_init(&r->free_groups, root->group_cnt) &&
	       stack_init(&r->free_overflow, root->overflow_cnt) &&
	       stack_init(&r->free_sessions, root->session_cnt) &&
	       stack_init(&r->freed, root->connection_cnt) &&
	       stack_init(&r->leaving, root->connection_cnt);
}

/* What a connection's books say while it is free, the sweep writes. */
int books_init(struct registry *r)
{
	const struct fan_registry *root = r->root;
	uint32_t user_cnt = user_cnt_max(r);

	r->users = big_calloc(user_cnt, sizeof(*r->users));
	r->connection_books = big_calloc(root->connection_cnt, sizeof(*r->connection_books));
	r->group_links = big_calloc(root->group_cnt, sizeof(*r->group_links));
	r->group_books = big_calloc(root->group_cnt, sizeof(*r->group_books));
	r->memberships = big_calloc(root->endpoint_cnt, sizeof(*r->memberships));
	if (!r->users || !r->connection_books || !r->group_links || !r->group_books ||
	    !r->memberships || !stacks_init(r))
		return -ENOMEM;
	r->lingering = (struct linger_list){NONE, NONE};
	if (block_pool_init(&r->blocks, root->endpoint_cnt) < 0 ||
	    index_init(&r->ids, root->connection_cnt, root->connection_cnt, r, same_id) < 0 ||
	    index_init(&r->handles, user_cnt, root->group_cnt, r, same_handle) < 0)
		return -ENOMEM;
	return 0;
}

void books_fini(struct registry *r)
{
	const struct fan_registry *root = r->root;
	struct stack *stacks[] = {&r->free_users,  &r->free_memberships, &r->free_connections,
				  &r->free_groups, &r->free_overflow,	 &r->free_sessions,
				  &r->freed,	   &r->leaving,		 &r->unsettled};

	if (!root)
		return; /* nothing was made */
	for (unsigned i = 0; i < sizeof(stacks) / sizeof(stacks[0]); i++)
		stack_fini(stacks[i]);
	big_free(r->users, user_cnt_max(r), sizeof(*r->users));
	big_free(r->connection_books, root->connection_cnt, sizeof(*r->connection_books));
	big_free(r->group_links, root->group_cnt, sizeof(*r->group_links));
	big_free(r->group_books, root->group_cnt, sizeof(*r->group_books));
	big_free(r->memberships, root->endpoint_cnt, sizeof(*r->memberships));
	block_pool_fini(&r->blocks);
	index_fini(&r->ids);
	index_fini(&r->handles);
}
