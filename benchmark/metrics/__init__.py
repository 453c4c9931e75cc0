"""What is measured. Probes collect evidence, metrics are functions of it; `configs/metric/` says what each means."""
