/* The intrusive list. */
#include "base/list.h"
#include "check.h"

typedef struct item {
    int number;
    pg_node node;
} item;

static void check_order(pg_node *list, const int *numbers, int count)
{
    pg_node *node = list->next, *before = list;
    for (int i = 0; i < count; i++, before = node, node = node->next) {
        CHECK_EQ(pg_container_of(node, item, node)->number, numbers[i]);
        CHECK(node->prev == before);
    }
    CHECK(node == list);
    CHECK(list->prev == before);
}

static void appended_items_keep_their_order(void)
{
    pg_node list;
    item items[4];
    pg_list_init(&list);
    CHECK(pg_list_empty(&list));
    CHECK(pg_list_first(&list) == NULL);
    for (int i = 0; i < 4; i++) {
        items[i].number = i;
        pg_list_append(&list, &items[i].node);
    }
    check_order(&list, (int[]){0, 1, 2, 3}, 4);
    CHECK(pg_list_first(&list) == &items[0].node);
}

static void items_leave_from_every_place(void)
{
    for (int gone = 0; gone < 3; gone++) {
        pg_node list;
        item items[3];
        int rest[2], count = 0;
        pg_list_init(&list);
        for (int i = 0; i < 3; i++) {
            items[i].number = i;
            pg_list_append(&list, &items[i].node);
            if (i != gone) rest[count++] = i;
        }
        pg_list_remove(&items[gone].node);
        check_order(&list, rest, 2);
    }
}

static void membership_can_be_asked_and_removal_repeated(void)
{
    pg_node list;
    item only = {.number = 1};
    pg_list_init(&list);
    pg_list_init(&only.node);
    CHECK(!pg_list_linked(&only.node));
    pg_list_append(&list, &only.node);
    CHECK(pg_list_linked(&only.node));
    pg_list_remove(&only.node);
    pg_list_remove(&only.node);
    CHECK(!pg_list_linked(&only.node));
    CHECK(pg_list_empty(&list));
}

int main(void)
{
    RUN(appended_items_keep_their_order);
    RUN(items_leave_from_every_place);
    RUN(membership_can_be_asked_and_removal_repeated);
    return 0;
}
