"""Record traces from diffusers pipelines: what to run, where to look, and how to survive a kill.

    from easyteacache.integrations.diffusers.recording import RecordingSettings, plan_jobs, record_pipeline

    jobs = plan_jobs(prompts=["a fox in snow"], sizes=[(832, 480)], frames=[81], steps=[50], shifts=[5.0])
    record_pipeline(pipe, jobs, "traces", RecordingSettings(model_key="wan2.1/t2v-14b"))

Importing this package needs torch and diffusers.
"""

from easyteacache.integrations.diffusers.recording.jobs import Job, plan_jobs
from easyteacache.integrations.diffusers.recording.pipeline_runs import RecordingSettings, record_run
from easyteacache.integrations.diffusers.recording.session import RecordingSummary, record_pipeline

__all__ = ["Job", "RecordingSettings", "RecordingSummary", "plan_jobs", "record_pipeline", "record_run"]
