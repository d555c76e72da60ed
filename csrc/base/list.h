/* Intrusive doubly linked circular list. The owner of the list protects it; a node that is in no list points at
 * itself, so removing twice is harmless and membership can be asked. */
#ifndef PG_LIST_H
#define PG_LIST_H

#include "base/base.h"

typedef struct pg_node {
    struct pg_node *next, *prev;
} pg_node;

static inline void pg_list_init(pg_node *node) { node->next = node->prev = node; }
static inline bool pg_list_empty(const pg_node *list) { return list->next == list; }
#define pg_list_linked(node) (!pg_list_empty(node))

static inline void pg_list_append(pg_node *list, pg_node *node)
{
    node->prev = list->prev;
    node->next = list;
    list->prev->next = node;
    list->prev = node;
}

static inline void pg_list_remove(pg_node *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    pg_list_init(node);
}

static inline pg_node *pg_list_first(pg_node *list) { return pg_list_empty(list) ? NULL : list->next; }

#endif
