"""Teachers, students and the distillation between them; `tutelage.distil.pipeline` is the entry point."""
