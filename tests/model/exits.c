/* Model: the end of the process, with all of lifecycle.c beside what monitor.c has. Once the scheduler has stopped no task
 * starts or goes on, whatever anybody does; the main thread's waits let them go on, and have them stop again; and after a
 * resume nothing is lost, neither tasks nor timers.
 */
#include "monitored.h"

ABSENT_VOID(pg_stack_before_fork, (void))
ABSENT_VOID(pg_stack_after_fork, (void))

static atomic_bool stopped; /* pg_sched_stop has said so, and nobody has resumed */

static void setup_exit(int workers)
{
    setup_watched_by(&awaited, workers);
    mc_set_main_thread();
    pg_store_relaxed(&stopped, false);
}
static void setup_exit_of_one(void) { setup_exit(1); }
static void setup_exit_of_two(void) { setup_exit(2); }
static void setup_patient_exit(void) /* no look of the monitor's helps */
{
    setup_exit(1);
    mc_set_patient();
}

static void stop(void)
{
    enum { MOMENTS = 4, PATIENCE = 200000 }; /* a few looks: beside the monitor, which looks, too, there is no end of them */
    for (unsigned i = mc_choose(MOMENTS); i-- > 0;) mc_nap();
    if (pg_sched_stop(PATIENCE)) pg_store_relaxed(&stopped, true);
}
static void resume(void)
{
    pg_store_relaxed(&stopped, false);
    MC_CHECK(pg_sched_resume());
}

/* Tasks that look, at each step, whether they may make one. */
static void step(job *it)
{
    (void)it;
    MC_CHECK(!pg_load_relaxed(&stopped));
}
static void step_and_wait_0(job *it)
{
    step(it);
    wait_for(0);
    step(it);
}
static void step_and_end_0(job *it)
{
    step(it);
    end_wait(0);
    step(it);
}
static void step_and_end_1(job *it)
{
    step(it);
    end_wait(1);
}
static void step_and_yield(job *it)
{
    step(it);
    pg_sched_yield();
    step(it);
}
static void step_and_sleep(job *it)
{
    step(it);
    MC_CHECK(pg_sched_sleep_until(pg_now() + 1000) == PG_OK);
    step(it);
}
static void step_and_block(job *it)
{
    step(it);
    block(0);
    pg_sched_yield();
    step(it);
}

/* At the first scheduling point after its worker has been told. */
static char begun;
static void rest_when_told(job *it)
{
    (void)it;
    mc_token_put(&begun);
    while (!pg_load_seqcst(&pg_the_sched.stopping)) pg_cpu_relax();
    pg_lock_acquire(&pg_the_sched.lock);
    pg_lock_release(&pg_the_sched.lock);
    pg_sched_yield();
    mc_fail("it went on");
}

/* All rest, with their permits free, whatever is left to do. */
static void check_stopped(void)
{
    pg_sched *sched = &pg_the_sched;
    for (int i = 0; i < pg_load_relaxed(&sched->table_length); i++) {
        pg_worker *worker = pg_load_relaxed(&sched->table[i]);
        MC_CHECK(!worker->permit && (!worker->alive || worker->sleep != AWAKE));
    }
    MC_CHECK(pg_load_relaxed(&sched->permits_free) == sched->permits && pg_load_relaxed(&sched->searching) == 0);
    for (int i = 0; i < TASKS; i++) MC_CHECK(!jobs[i].ended || jobs[i].spawned);
}

static void spawn_two(void)
{
    spawn(0, step_and_wait_0);
    spawn(1, step_and_end_0);
}
static void main_that_stops(void)
{
    mc_name("main");
    spawn_two();
    stop();
}
static void main_that_stops_yielding_tasks(void)
{
    mc_name("main");
    spawn(0, step_and_yield);
    spawn(1, step_and_yield);
    stop();
}
static void main_that_stops_beside_a_sleeper(void)
{
    mc_name("main");
    spawn(0, step_and_sleep);
    stop();
}
static void main_that_stops_beside_a_call(void)
{
    mc_name("main");
    spawn(0, step_and_block);
    spawn(1, step);
    stop();
}
static void main_that_tells(void)
{
    mc_name("main");
    spawn(0, rest_when_told);
    mc_token_take(&begun);
    stop();
}
static void thread_that_spawns(void)
{
    mc_name("thread");
    spawn(2, step);
    mc_thread_exits();
}
static void thread_that_unblocks(void)
{
    mc_name("thread");
    unblock(0);
    mc_thread_exits();
}

/* Handlers of the exit may wait; then tasks go on, and have stopped again afterwards. */
static void main_that_waits_then(void)
{
    mc_name("main");
    spawn_two();
    stop();
    spawn(2, step_and_end_1);
    pg_store_relaxed(&stopped, false);
    wait_for(1);
    MC_CHECK(pg_load_relaxed(&pg_the_sched.stopping));
    stop();
}
static void check_waited(void)
{
    check_stopped();
    MC_CHECK(jobs[2].ended);
}

/* What was ready, asleep or blocked goes on. */
static void main_that_resumes(void)
{
    mc_name("main");
    spawn_two();
    stop();
    resume();
}
static void main_that_resumes_a_sleeper(void)
{
    mc_name("main");
    spawn(0, step_and_sleep);
    stop();
    resume();
}
static void main_that_resumes_a_timer(void)
{
    mc_name("main");
    timer = (pg_timer){.fire = ring};
    jobs[1].body = step;
    jobs[1].by_timer = true;
    MC_CHECK(pg_sched_timer_start(&timer, pg_now() + 1000) == PG_OK);
    stop();
    resume();
}
static void main_that_resumes_beside_a_call(void)
{
    mc_name("main");
    spawn(0, step_and_block);
    spawn(1, step);
    stop();
    resume();
}

#define BOUNDS .rests = true, .preemptions = 2, .stale = 1
const mc_scenario mc_scenarios[] = {
    {"stops", setup_exit_of_one, {main_that_stops}, check_stopped, BOUNDS},
    {"two_stop", setup_exit_of_two, {main_that_stops}, check_stopped, BOUNDS},
    {"yielding_tasks_stop", setup_exit_of_one, {main_that_stops_yielding_tasks}, check_stopped, BOUNDS},
    {"stops_beside_a_sleeper", setup_exit_of_one, {main_that_stops_beside_a_sleeper}, check_stopped, BOUNDS},
    {"stops_at_once", setup_exit_of_one, {main_that_tells}, check_stopped, BOUNDS},
    {"stops_beside_a_call", setup_exit_of_one, {main_that_stops_beside_a_call, thread_that_unblocks}, check_stopped,
     BOUNDS},
    {"stops_beside_a_thread", setup_exit_of_one, {main_that_stops, thread_that_spawns}, check_stopped, BOUNDS},
    {"waits_then", setup_exit_of_one, {main_that_waits_then}, check_waited, BOUNDS},
    {"two_wait_then", setup_exit_of_two, {main_that_waits_then}, check_waited, BOUNDS},
    {"resumes", setup_exit_of_one, {main_that_resumes}, check, BOUNDS},
    {"two_resume", setup_exit_of_two, {main_that_resumes}, check, BOUNDS},
    {"resumes_patiently", setup_patient_exit, {main_that_resumes}, check, BOUNDS},
    {"resumes_a_sleeper", setup_exit_of_one, {main_that_resumes_a_sleeper}, check, BOUNDS},
    {"resumes_a_timer", setup_exit_of_one, {main_that_resumes_a_timer}, check, BOUNDS},
    {"resumes_beside_a_call", setup_exit_of_one, {main_that_resumes_beside_a_call, thread_that_unblocks}, check, BOUNDS},
    {"resumes_beside_a_thread", setup_exit_of_one, {main_that_resumes, thread_that_spawns}, check, BOUNDS},
    {.name = NULL},
};
