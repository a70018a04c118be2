/* A Slurm client that speaks the controller's own protocol through libslurm, without a process for each call.
 *
 * slurm_client submit N         submits N batch jobs that do nothing; prints the seconds it took
 * slurm_client held N           the same, held, so that only the submission counts
 * slurm_client left             prints how many jobs have neither ended nor are held
 */
#include <slurm/slurm.h>
#include <slurm/slurm_errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec + at.tv_nsec / 1e9;
}

static void submit(int held)
{
	static char *env[] = {"PATH=/usr/bin:/bin", NULL};
	job_desc_msg_t job;
	submit_response_msg_t *answer = NULL;

	slurm_init_job_desc_msg(&job);
	job.name = "nothing";
	job.script = "#!/bin/true\n";
	job.work_dir = "/";
	job.std_out = job.std_err = "/dev/null";
	job.user_id = getuid();
	job.group_id = getgid();
	job.environment = env;
	job.env_size = 1;
	job.min_cpus = job.num_tasks = 1;
	job.min_nodes = 1;
	if (held)
		job.priority = 0;
	if (slurm_submit_batch_job(&job, &answer)) {
		slurm_perror("submit");
		exit(1);
	}
	slurm_free_submit_response_response_msg(answer);
}

static int left(void)
{
	job_info_msg_t *found = NULL;
	int count = 0;

	if (slurm_load_jobs((time_t)0, &found, SHOW_ALL)) {
		slurm_perror("load");
		exit(1);
	}
	for (uint32_t i = 0; i < found->record_count; i++)
		count += (found->job_array[i].job_state & JOB_STATE_BASE) < JOB_COMPLETE && found->job_array[i].priority;
	slurm_free_job_info_msg(found);
	return count;
}

int main(int argc, char **argv)
{
	int count = argc > 2 ? atoi(argv[2]) : 0;
	double begun;

	slurm_init(NULL);
	if (argc > 1 && !strcmp(argv[1], "left")) {
		printf("%d\n", left());
		return 0;
	}
	begun = now();
	for (int i = 0; i < count; i++)
		submit(!strcmp(argv[1], "held"));
	printf("%.6f\n", now() - begun);
	return 0;
}
