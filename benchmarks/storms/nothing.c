/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest program: it ends at once. */
int main(void)
{
	return 0;
}
